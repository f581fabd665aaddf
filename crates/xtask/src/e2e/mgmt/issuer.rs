//! An issuer of service-account tokens that exists only as a key: the emulator is told its published keys, the clients get a
//! token of it.

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use podid_rt::clock::Clock;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::pkcs8::EncodePrivateKey as _;
use serde_json::{Value, json};

/// Its name.
pub(crate) const NAME: &str = "https://issuer.podid.test/e2e";
/// Whom its tokens are of.
pub(crate) const SUBJECT: &str = "system:serviceaccount:my-app:app";
/// Life of a token, seconds.
const LIFE_SECS: u64 = 3_600;
const KEY_ID: &str = "e2e";

/// The issuer.
pub(crate) struct Issuer(RsaKeyPair);

impl Issuer {
    /// With a new key.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).context("make a key")?;
        let der = key.to_pkcs8_der().context("write a key")?;
        RsaKeyPair::from_pkcs8(der.as_bytes())
            .map(Self)
            .map_err(|error| anyhow!("read a key: {error}"))
    }

    /// Its published keys.
    pub(crate) fn keys(&self) -> Value {
        let parts = PublicKeyComponents::<Vec<u8>>::from(self.0.public_key());
        json!({ "keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID,
            "n": URL_SAFE_NO_PAD.encode(parts.n), "e": URL_SAFE_NO_PAD.encode(parts.e),
        }] })
    }

    /// A token for the exchange at Entra.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let now = Clock::system().unix_secs();
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KEY_ID });
        let claims = json!({
            "iss": NAME, "sub": SUBJECT, "aud": ["api://AzureADTokenExchange"], "iat": now, "nbf": now, "exp": now + LIFE_SECS,
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|error| anyhow!("sign a token: {error}"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

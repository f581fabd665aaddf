//! The key that signs tokens: made once, kept in the state folder, published as JWKS.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use serde_json::{Value, json};

use crate::jwt::PublicKey;

/// As Entra's own keys.
const BITS: usize = 2048;

/// A signing key.
pub(crate) struct SigningKey {
    pair: RsaKeyPair,
    kid: String,
    public: PublicKey,
    random: SystemRandom,
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("the signing key cannot be made: {0}")]
    Make(String),
    #[error("the signing key cannot be used: {0}")]
    Use(String),
    #[error("signing failed")]
    Sign,
}

impl SigningKey {
    /// Makes a key; takes some tenths of a second of CPU. The bytes are PKCS#8, to be kept.
    pub(crate) fn generate() -> Result<Vec<u8>, KeyError> {
        let make = |error: &dyn std::fmt::Display| KeyError::Make(error.to_string());
        let key = RsaPrivateKey::new(&mut Random, BITS).map_err(|error| make(&error))?;
        let der = key.to_pkcs8_der().map_err(|error| make(&error))?;
        Ok(der.as_bytes().to_vec())
    }

    /// A key from its PKCS#8 bytes.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|error| KeyError::Use(error.to_string()))?;
        let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let digest = ring::digest::digest(
            &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            pair.public_key().as_ref(),
        );
        let kid = URL_SAFE_NO_PAD.encode(digest);
        Ok(Self {
            pair,
            kid,
            public: PublicKey {
                n: parts.n,
                e: parts.e,
            },
            random: SystemRandom::new(),
        })
    }

    /// The half that verifies.
    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// `base64url(header).base64url(claims).base64url(signature)`, RS256.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5t": self.kid, "kid": self.kid });
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &self.random, token.as_bytes(), &mut signature)
            .map_err(|_unspecified| KeyError::Sign)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The published keys.
    pub(crate) fn jwks(&self, issuer: &str) -> Value {
        json!({ "keys": [{
            "kty": "RSA", "use": "sig", "kid": self.kid, "x5t": self.kid, "alg": "RS256",
            "n": URL_SAFE_NO_PAD.encode(&self.public.n), "e": URL_SAFE_NO_PAD.encode(&self.public.e),
            "issuer": issuer,
        }] })
    }
}

/// The system's randomness, for a library that wants it behind its own trait.
struct Random;

impl rsa::rand_core::RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        use ring::rand::SecureRandom as _;
        SystemRandom::new()
            .fill(dest)
            .expect("the kernel gives random bytes");
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl rsa::rand_core::CryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt;

    #[test]
    fn what_is_signed_verifies_and_what_is_changed_does_not() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
        let token = key.sign(&json!({ "sub": "a" })).unwrap();
        let read = jwt::read(&token).unwrap();
        assert_eq!(read.header.kid.as_deref(), Some(key.kid.as_str()));
        assert!(read.verify(key.public()));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"b"}"#);
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[1] = &claims;
        let forged = parts.join(".");
        assert!(!jwt::read(&forged).unwrap().verify(key.public()));
    }
}

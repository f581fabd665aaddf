//! Reading and verifying JWTs, ours and other issuers'. RS256 only, as Entra demands of federated assertions.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;
use serde_json::{Map, Value};

/// An RSA public key, big-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey {
    pub(crate) n: Vec<u8>,
    pub(crate) e: Vec<u8>,
}

/// The header's members that we read.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    #[serde(default)]
    pub(crate) kid: Option<String>,
    #[serde(default)]
    pub(crate) x5t: Option<String>,
}

/// A token that was taken apart and not yet believed.
pub(crate) struct Unverified<'a> {
    pub(crate) header: Header,
    pub(crate) claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

/// Takes a token apart; none when it is no JWT.
pub(crate) fn read(token: &str) -> Option<Unverified<'_>> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    if claims.contains('.') {
        return None;
    }
    Some(Unverified {
        header: serde_json::from_slice(&decode(header)?).ok()?,
        claims: serde_json::from_slice(&decode(claims)?).ok()?,
        signed,
        signature: decode(signature)?,
    })
}

/// Some old programs pad.
fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD
        .decode(part)
        .or_else(|_not_bare| URL_SAFE.decode(part))
        .ok()
}

impl Unverified<'_> {
    /// Whether `key` made this signature, by RS256.
    pub(crate) fn verify(&self, key: &PublicKey) -> bool {
        self.header.alg == "RS256"
            && RsaPublicKeyComponents { n: &key.n, e: &key.e }
                .verify(
                    &RSA_PKCS1_2048_8192_SHA256,
                    self.signed.as_bytes(),
                    &self.signature,
                )
                .is_ok()
    }

    /// A claim that is text.
    pub(crate) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// A claim that is a time, seconds since 1970.
    pub(crate) fn time(&self, claim: &str) -> Option<u64> {
        self.claims.get(claim).and_then(|value| {
            value.as_u64().or_else(|| {
                // RFC 7519 allows fractions.
                value.as_f64().filter(|secs| *secs >= 0.0).map(whole_secs)
            })
        })
    }

    /// The audience, one or several.
    pub(crate) fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be positive; `as` saturates"
)]
fn whole_secs(secs: f64) -> u64 {
    secs as u64
}

/// The RSA keys of a JWKS, with their ids.
pub(crate) fn keys(jwks: &Value) -> Vec<(Option<String>, PublicKey)> {
    let text = |key: &Value, member: &str| key.get(member).and_then(Value::as_str).map(str::to_owned);
    jwks.get("keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|key| text(key, "kty").as_deref() == Some("RSA"))
        .filter_map(|key| {
            let public = PublicKey {
                n: decode(&text(key, "n")?)?,
                e: decode(&text(key, "e")?)?,
            };
            Some((text(key, "kid"), public))
        })
        .collect()
}

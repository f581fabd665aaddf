//! Checks an access token as a resource would: RS256 signature by a published key, then the claims. It shares
//! nothing with the emulator that signed it.

use std::collections::BTreeMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::{Deserialize, Serialize};

/// The claims that the story looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Client id of the identity.
    pub appid: String,
    /// The resource that the token is for.
    pub aud: String,
    /// Who signed it.
    pub iss: String,
    /// Tenant.
    pub tid: String,
    /// Object id of the identity.
    pub oid: String,
    /// When it ends, Unix time.
    pub exp: u64,
}

/// Why a token does not hold.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url.
    #[error("it is not a JWT")]
    Shape,
    /// Not RS256.
    #[error("its algorithm is `{0}`, not RS256")]
    Algorithm(String),
    /// Signed by a key that the issuer does not publish.
    #[error("its key `{0}` is not published")]
    Key(String),
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing.
    #[error("its claims cannot be read")]
    Claims(#[source] serde_json::Error),
}

/// The keys that an issuer publishes, by their id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    by_id: BTreeMap<String, Key>,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    n: Vec<u8>,
    e: Vec<u8>,
}

/// Why published keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Not a JWKS.
    #[error("the keys are not a JWKS")]
    Json(#[from] serde_json::Error),
    /// No RSA key in it.
    #[error("there is no RSA key among the keys")]
    Empty,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<WireKey>,
}

#[derive(Deserialize)]
struct WireKey {
    kty: String,
    kid: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

impl FromStr for Keys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        let set: KeySet = serde_json::from_str(text)?;
        let by_id: BTreeMap<_, _> = set
            .keys
            .into_iter()
            .filter(|key| key.kty == "RSA")
            .filter_map(|key| {
                let n = URL_SAFE_NO_PAD.decode(&key.n).ok()?;
                let e = URL_SAFE_NO_PAD.decode(&key.e).ok()?;
                Some((key.kid, Key { n, e }))
            })
            .collect();
        if by_id.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(Self {
            by_id,
            text: text.to_owned(),
        })
    }
}

impl Keys {
    /// The keys as they were published.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The claims of `token`, if one of these keys signed it.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Shape);
        };
        let decode = |part: &str| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_not_base64| TokenError::Shape)
        };
        let read: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_not_a_header| TokenError::Shape)?;
        if read.alg != "RS256" {
            return Err(TokenError::Algorithm(read.alg));
        }
        let key = self.by_id.get(&read.kid).ok_or(TokenError::Key(read.kid))?;
        RsaPublicKeyComponents { n: &key.n, e: &key.e }
            .verify(
                &RSA_PKCS1_2048_8192_SHA256,
                format!("{header}.{payload}").as_bytes(),
                &decode(signature)?,
            )
            .map_err(|_unspecified| TokenError::Signature)?;
        serde_json::from_slice(&decode(payload)?).map_err(TokenError::Claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_signed_is_not_believed() {
        let keys: Keys = r#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}"#
            .parse()
            .unwrap();
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let payload = part(r#"{"appid":"x","aud":"y","iss":"z","tid":"t","oid":"o","exp":1}"#);
        let none = format!("{}.{payload}.", part(r#"{"alg":"none","kid":"a"}"#));
        assert!(matches!(keys.verify(&none), Err(TokenError::Algorithm(alg)) if alg == "none"));
        let stranger = format!("{}.{payload}.AAAA", part(r#"{"alg":"RS256","kid":"b"}"#));
        assert!(matches!(keys.verify(&stranger), Err(TokenError::Key(kid)) if kid == "b"));
        let forged = format!("{}.{payload}.AAAA", part(r#"{"alg":"RS256","kid":"a"}"#));
        assert!(matches!(keys.verify(&forged), Err(TokenError::Signature)));
        assert!(matches!(keys.verify("opaque"), Err(TokenError::Shape)));
    }

    #[test]
    fn keys_without_an_rsa_key_are_refused() {
        assert!(matches!(r#"{"keys":[]}"#.parse::<Keys>(), Err(KeysError::Empty)));
        assert!(matches!("{}".parse::<Keys>(), Err(KeysError::Json(_))));
    }
}

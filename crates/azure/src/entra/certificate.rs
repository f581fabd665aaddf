//! A client certificate and the assertions that are signed with its key. RS256 only, which is what Entra takes from RSA keys.
//! Source: <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use podid_core::Secret;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use thiserror::Error;

use super::pkcs12::{self, Pkcs12Error};

/// How long an assertion is valid, in seconds. It is used at once; the rest is for clocks that differ.
const LIFE_SECS: u64 = 600;

/// A certificate with its RSA key. Cloning shares the key.
#[derive(Clone)]
pub struct ClientCertificate {
    der: Arc<[u8]>,
    key: Arc<KeyPair>,
}

/// Why a certificate cannot be used. The texts have nothing of the key.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// No certificate can be read.
    #[error("the client certificate has no readable certificate in PEM")]
    Certificate,
    /// No key can be read.
    #[error("the client certificate has no readable private key in PEM (encrypted keys are not supported)")]
    Key,
    /// A PKCS#12 file cannot be opened.
    #[error(transparent)]
    Pkcs12(#[from] Pkcs12Error),
    /// No certificate is the key's.
    #[error("no certificate in the PKCS#12 file is of its private key")]
    OtherKey,
    /// The key is not one to sign with.
    #[error("the client certificate's key is not a usable RSA key of 2048 bits or more ({0})")]
    Rsa(String),
    /// Signing failed.
    #[error("the client assertion could not be signed")]
    Signing,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(…)")
    }
}

impl ClientCertificate {
    /// Reads the first certificate and the first key of a PEM bundle, in whatever order.
    pub fn from_pem(bundle: &[u8]) -> Result<Self, CertificateError> {
        let certificate =
            CertificateDer::from_pem_slice(bundle).map_err(|_unreadable| CertificateError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(bundle).map_err(|_unreadable| CertificateError::Key)?;
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(CertificateError::Rsa("it is not RSA".to_owned())),
        };
        Ok(Self {
            der: certificate.as_ref().into(),
            key: Arc::new(key.map_err(|rejected| CertificateError::Rsa(rejected.to_string()))?),
        })
    }

    /// Opens a PKCS#12 file with one key, and takes the certificate that is the key's. Up to some tenths of a second of work, and no
    /// more whatever the file says.
    pub fn from_pkcs12(file: &[u8], password: &str) -> Result<Self, CertificateError> {
        let opened = pkcs12::open(file, password)?;
        let key = KeyPair::from_pkcs8(&opened.key)
            .map_err(|rejected| CertificateError::Rsa(rejected.to_string()))?;
        // A certificate holds the public key exactly as it is encoded by itself.
        let public = key.public().as_ref();
        let of_key = |der: &Vec<u8>| der.windows(public.len()).any(|part| part == public);
        let der = opened
            .certificates
            .into_iter()
            .find(of_key)
            .ok_or(CertificateError::OtherKey)?;
        Ok(Self {
            der: der.into(),
            key: Arc::new(key),
        })
    }

    /// A signed assertion of `client_id` for `audience`, the token endpoint's URL, valid from `now`.
    pub(crate) fn assertion(
        &self,
        client_id: &str,
        audience: &str,
        now: u64,
    ) -> Result<Secret, CertificateError> {
        let random = SystemRandom::new();
        let mut id = [0; 20];
        random
            .fill(&mut id)
            .map_err(|_no_entropy| CertificateError::Signing)?;
        let header = json!({
            "alg": "RS256",
            "typ": "JWT",
            "x5t": URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.der)),
            "x5t#S256": URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.der)),
            "x5c": [STANDARD.encode(&self.der)],
        });
        let claims = json!({
            "aud": audience,
            "iss": client_id,
            "sub": client_id,
            "jti": URL_SAFE_NO_PAD.encode(id),
            "nbf": now,
            "iat": now,
            "exp": now + LIFE_SECS,
        });
        let mut text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
            .map_err(|_unsigned| CertificateError::Signing)?;
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(Secret::new(text))
    }
}

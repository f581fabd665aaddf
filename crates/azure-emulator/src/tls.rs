//! The emulator's own certificate authority and the certificate of its HTTPS door. The authority persists; the
//! certificate is made at each start, for the addresses and names of that start.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// How the authority is called.
const NAME: &str = "podid azure-emulator CA";

/// A certificate authority.
pub(crate) struct Authority {
    pem: String,
    key: KeyPair,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("a certificate cannot be made for `{names}`")]
    Certificate {
        names: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("the certificate authority cannot be made or read")]
    Authority(#[source] rcgen::Error),
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

impl Authority {
    /// A new one.
    pub(crate) fn generate() -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Authority)?;
        let pem = params()
            .and_then(|params| params.self_signed(&key))
            .map_err(TlsError::Authority)?
            .pem();
        Ok(Self { pem, key })
    }

    /// One that was kept.
    pub(crate) fn from_pem(pem: String, key: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key).map_err(TlsError::Authority)?;
        Ok(Self { pem, key })
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key, to be kept.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A server's TLS configuration for these addresses and names.
    pub(crate) fn serve(&self, names: Vec<String>) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let failed = |names: &[String], source| TlsError::Certificate {
            names: names.join(", "),
            source,
        };
        let key = KeyPair::generate().map_err(|error| failed(&names, error))?;
        let issuer = Issuer::new(params().map_err(TlsError::Authority)?, &self.key);
        let certificate = CertificateParams::new(names.clone())
            .map(|mut params| {
                params.distinguished_name = named("podid azure-emulator");
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.use_authority_key_identifier_extension = true;
                params
            })
            .and_then(|params| params.signed_by(&key, &issuer))
            .map_err(|error| failed(&names, error))?;
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The same at each start, since the authority is its key and this name.
fn params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = named(NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

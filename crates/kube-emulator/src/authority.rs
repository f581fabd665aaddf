//! The certificate authority of a world: made once or given, it signs the server's certificate and clients' ones.

use std::net::IpAddr;
use std::sync::Arc;

use podid_rt::clock::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// How long a certificate lives, in days. A world lives shorter.
const LIFETIME_DAYS: i64 = 365;

/// A certificate authority. Clones are the same authority.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    certificate_pem: String,
    key_pem: Zeroizing<String>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: Zeroizing<String>,
}

/// An authority or a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// rcgen says no.
    #[error("the certificate authority cannot {what}")]
    Certificate {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// A PEM text that was just made, or was given, does not read.
    #[error("the PEM text of a certificate or key cannot be read")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// rustls says no.
    #[error("TLS cannot be set up with this authority")]
    Tls(#[source] rustls::Error),
    /// The client verifier says no.
    #[error("clients' certificates cannot be verified with this authority")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

impl AuthorityError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Certificate { .. } => "authority_certificate",
            Self::Pem(_) => "authority_pem",
            Self::Tls(_) => "authority_tls",
            Self::Verifier(_) => "authority_verifier",
        }
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority of this name.
    pub fn generate(name: &str, clock: &Clock) -> Result<Self, AuthorityError> {
        let failed = |source| AuthorityError::Certificate {
            what: "make itself",
            source,
        };
        let mut params = params(name, &[], clock).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// An authority from its certificate and key, PEM (PKCS#8).
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let failed = |source| AuthorityError::Certificate {
            what: "be read",
            source,
        };
        let key = KeyPair::from_pem(key_pem).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(failed)?;
        Ok(Self(Arc::new(Inner {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: Zeroizing::new(key_pem.to_owned()),
            issuer,
        })))
    }

    /// Its certificate, PEM: what clients trust.
    pub fn certificate_pem(&self) -> &str {
        &self.0.certificate_pem
    }

    /// Its private key, PEM, for who keeps it in a state folder.
    pub fn key_pem(&self) -> &str {
        &self.0.key_pem
    }

    /// A server's certificate for these DNS names and addresses.
    pub fn issue_server(&self, names: &[String], clock: &Clock) -> Result<Identity, AuthorityError> {
        self.issue(
            "kube-apiserver",
            &[],
            names,
            ExtendedKeyUsagePurpose::ServerAuth,
            clock,
        )
    }

    /// A client's certificate for this user in these groups.
    pub fn issue_client(
        &self,
        user: &str,
        groups: &[&str],
        clock: &Clock,
    ) -> Result<Identity, AuthorityError> {
        self.issue(user, groups, &[], ExtendedKeyUsagePurpose::ClientAuth, clock)
    }

    fn issue(
        &self,
        name: &str,
        groups: &[&str],
        alternatives: &[String],
        purpose: ExtendedKeyUsagePurpose,
        clock: &Clock,
    ) -> Result<Identity, AuthorityError> {
        let failed = |source| AuthorityError::Certificate {
            what: "sign a certificate",
            source,
        };
        let mut params = params(name, groups, clock).map_err(failed)?;
        for name in alternatives {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(failed)?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.0.issuer).map_err(failed)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// TLS for a server of this identity that asks clients for a certificate of this authority, and takes them without.
    pub(crate) fn tls(&self, identity: &Identity) -> Result<rustls::ServerConfig, AuthorityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let root =
            CertificateDer::from_pem_slice(self.certificate_pem().as_bytes()).map_err(AuthorityError::Pem)?;
        roots.add(root).map_err(AuthorityError::Tls)?;
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        )
        .allow_unauthenticated()
        .build()
        .map_err(AuthorityError::Verifier)?;
        let chain = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes())
            .map_err(AuthorityError::Pem)?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(AuthorityError::Pem)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(AuthorityError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![chain], key)
            .map_err(AuthorityError::Tls)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn params(name: &str, groups: &[&str], clock: &Clock) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut subject = DistinguishedName::new();
    for group in groups {
        subject.push(DnType::OrganizationName, *group);
    }
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let day = |offset: i64| {
        let days = i64::try_from(clock.unix_secs() / 86_400).unwrap_or_default() + offset;
        let time = jiff::Timestamp::from_second(days.saturating_mul(86_400)).unwrap_or_default();
        let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
        let part = |value: i8| u8::try_from(value).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    // A day back, for clients whose clock is a little behind.
    params.not_before = day(-1);
    params.not_after = day(LIFETIME_DAYS);
    Ok(params)
}

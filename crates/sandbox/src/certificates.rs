//! The certificate authority of a world, which signs for both emulators. Its key never leaves the state folder.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::state::WorldName;

/// Certificate and key, PEM.
pub(crate) struct Authority {
    /// What clients trust.
    pub certificate: String,
    /// What signs.
    pub key: String,
}

impl Authority {
    /// A new one. It names no end: it ends with its world.
    pub(crate) fn generate(world: &WorldName) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, format!("podid sandbox {world}"));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

//! The public half of an application's certificate: just enough DER to find the RSA key, and the thumbprint.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::world::principal::Certificate;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;

/// Reads a certificate in PEM; none when it is not one or has no RSA key.
pub(crate) fn from_pem(pem: &str) -> Option<Certificate> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let thumbprint = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &der);
    let (n, e) = key(&der)?;
    Some(Certificate {
        x5t: URL_SAFE_NO_PAD.encode(thumbprint),
        n,
        e,
    })
}

/// Modulus and exponent. Source: RFC 5280 section 4.1, RFC 8017 appendix A.1.1.
fn key(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut certificate = Der(Der(der).take(SEQUENCE)?);
    let mut body = Der(certificate.take(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.take(VERSION)?;
    }
    body.take(INTEGER)?; // serial number
    for _signature_issuer_validity_subject in 0..4 {
        body.take(SEQUENCE)?;
    }
    let mut info = Der(body.take(SEQUENCE)?);
    info.take(SEQUENCE)?; // algorithm
    let (unused, bits) = info.take(BIT_STRING)?.split_first()?;
    if *unused != 0 {
        return None;
    }
    let mut key = Der(Der(bits).take(SEQUENCE)?);
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .copied()
            .skip_while(|byte| *byte == 0)
            .collect::<Vec<u8>>()
    };
    let n = number(key.take(INTEGER)?);
    let e = number(key.take(INTEGER)?);
    (!n.is_empty() && !e.is_empty()).then_some((n, e))
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next element, which must have that tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = if *first < 0x80 {
            (usize::from(*first), rest)
        } else {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.len() > 3 {
                return None;
            }
            (
                bytes.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)),
                rest,
            )
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (*found == tag).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SigningKey;

    #[test]
    fn the_key_in_a_certificate_is_found() {
        let der = SigningKey::generate().unwrap();
        let pair =
            rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &rcgen::PKCS_RSA_SHA256)
                .unwrap();
        let pem = rcgen::CertificateParams::new(Vec::<String>::new())
            .unwrap()
            .self_signed(&pair)
            .unwrap()
            .pem();
        let read = from_pem(&pem).unwrap();
        let key = SigningKey::from_pkcs8(&der).unwrap();
        assert_eq!((&read.n, &read.e), (&key.public().n, &key.public().e));
        assert!(from_pem("no certificate").is_none());
    }
}

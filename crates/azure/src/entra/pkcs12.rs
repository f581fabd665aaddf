//! PKCS#12 files: one private key and the certificates beside it, as OpenSSL, Windows and Java write them. Who writes the
//! file also chooses how much work it is to open it, so the work has a bound; what is over it is refused before it is done.
//! That is why no crate does it: p12-keystore allows a million rounds for each bag, and scrypt a gibibyte.
//! Source: RFC 7292; RFC 8018 for PBES2.
//!
//! PFX ─ MAC right? ─▶ safes, some encrypted ─▶ bags ─▶ the key (encrypted once more) + certificates

mod cipher;
mod der;

use ring::hmac;
use thiserror::Error;

use self::cipher::{Hash, Work};
use self::der::{Der, Oid};

/// Longest file that is looked at, in bytes. A key, its certificate and a long chain have fewer than 20 KiB.
const MAX_FILE: usize = 64 * 1024;
/// Most safes, bags in all, and certificates in a file.
const MAX_PARTS: usize = 64;

// Source: RFC 7292, section 4; RFC 2985, section 5.5.
const DATA: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01]);
const ENCRYPTED_DATA: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06]);
const KEY_BAG: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x01]);
const SHROUDED_KEY_BAG: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02]);
const CERT_BAG: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03]);
const X509: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01]);

/// Why a PKCS#12 file cannot be used. The texts have nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Pkcs12Error {
    /// It is not such a file, or broken.
    #[error("it is not a PKCS#12 file in DER, or it is broken")]
    Malformed,
    /// The password does not open it.
    #[error("the password does not open the PKCS#12 file")]
    Password,
    /// It needs more work than is done for anybody.
    #[error(
        "opening the PKCS#12 file takes more than {} iterations; export it with fewer iterations",
        cipher::MAX_ROUNDS
    )]
    Work,
    /// It is larger than any file of a key and its certificates.
    #[error("the PKCS#12 file has more than {MAX_FILE} bytes or {MAX_PARTS} parts")]
    Size,
    /// It uses something that is not known here.
    #[error("the PKCS#12 file uses {0}, which is not supported")]
    Unsupported(&'static str),
    /// Not just one key.
    #[error("the PKCS#12 file must have one private key, and has {0}")]
    Keys(usize),
    /// No certificate.
    #[error("the PKCS#12 file has no certificate")]
    NoCertificate,
}

/// What is in a file: the key in PKCS#8, and the certificates in the order in which they are written.
pub(super) struct Opened {
    pub(super) key: zeroize::Zeroizing<Vec<u8>>,
    pub(super) certificates: Vec<Vec<u8>>,
}

/// Opens a file. Up to some tenths of a second of work.
pub(super) fn open(file: &[u8], password: &str) -> Result<Opened, Pkcs12Error> {
    if file.len() > MAX_FILE {
        return Err(Pkcs12Error::Size);
    }
    let mut work = Work::new();
    let mut pfx = Der(file).sequence()?;
    pfx.integer()?;
    let safe = contents(pfx.sequence()?, DATA)?;
    let safes = Der(safe).octets()?;
    let password = Password {
        text: password,
        bmp: check_mac(pfx, safes, password, &mut work)?,
    };
    let mut found = Found::default();
    let mut safes = Der(safes).sequence()?;
    while !safes.is_empty() {
        found.part()?;
        let mut safe = safes.sequence()?;
        match safe.oid()? {
            DATA => found.bags(Der(safe.explicit(0)?).octets()?, &password, &mut work)?,
            ENCRYPTED_DATA => {
                let mut data = Der(safe.explicit(0)?).sequence()?;
                data.integer()?;
                let mut content = data.sequence()?;
                if content.oid()? != DATA {
                    return Err(Pkcs12Error::Malformed);
                }
                let algorithm = content.sequence()?;
                let bags = cipher::decrypt(algorithm, content.tagged(0x80)?, &password, &mut work)?;
                found.bags(&bags, &password, &mut work)?;
            }
            _ => return Err(Pkcs12Error::Unsupported("encryption by a public key")),
        }
    }
    let keys = found.keys.len();
    match (found.keys.pop(), keys) {
        (Some(_), 1) if found.certificates.is_empty() => Err(Pkcs12Error::NoCertificate),
        (Some(key), 1) => Ok(Opened {
            key,
            certificates: found.certificates,
        }),
        _ => Err(Pkcs12Error::Keys(keys)),
    }
}

/// A password as the newer ciphers take it, and as the older ones do.
struct Password<'a> {
    text: &'a str,
    /// UTF-16, big endian, ended by a zero. Empty for the one of two ways to write no password.
    bmp: zeroize::Zeroizing<Vec<u8>>,
}

/// The content of a ContentInfo of this kind.
fn contents<'a>(mut info: Der<'a>, kind: Oid<'_>) -> Result<&'a [u8], Pkcs12Error> {
    if info.oid()? != kind {
        return Err(Pkcs12Error::Unsupported("signatures instead of a password"));
    }
    info.explicit(0)
}

/// Checks that the file is whole and the password right. The password in the way that was right.
fn check_mac(
    mut pfx: Der<'_>,
    safes: &[u8],
    password: &str,
    work: &mut Work,
) -> Result<zeroize::Zeroizing<Vec<u8>>, Pkcs12Error> {
    let mut bmp = zeroize::Zeroizing::new(Vec::with_capacity(password.len() * 2 + 2));
    for unit in password.encode_utf16().chain([0]) {
        bmp.extend(unit.to_be_bytes());
    }
    if pfx.is_empty() {
        return Err(Pkcs12Error::Unsupported("no MAC"));
    }
    let mut mac = pfx.sequence()?;
    let mut digest = mac.sequence()?;
    let hash = Hash::of_digest(digest.sequence()?.oid()?)?;
    let expected = digest.octets()?;
    let salt = mac.octets()?;
    let rounds = if mac.is_empty() { 1 } else { mac.integer()? };
    let ways = [bmp, zeroize::Zeroizing::new(Vec::new())];
    for way in ways {
        let key = cipher::derive(hash, cipher::Purpose::Mac, &way, salt, rounds, hash.len(), work)?;
        let key = hmac::Key::new(hash.hmac(), &key);
        if hmac::verify(&key, safes, expected).is_ok() {
            return Ok(way);
        }
        if !password.is_empty() {
            break;
        }
    }
    Err(Pkcs12Error::Password)
}

#[derive(Default)]
struct Found {
    keys: Vec<zeroize::Zeroizing<Vec<u8>>>,
    certificates: Vec<Vec<u8>>,
    parts: usize,
}

impl Found {
    fn part(&mut self) -> Result<(), Pkcs12Error> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(Pkcs12Error::Size);
        }
        Ok(())
    }

    fn bags(&mut self, safe: &[u8], password: &Password<'_>, work: &mut Work) -> Result<(), Pkcs12Error> {
        let mut bags = Der(safe).sequence()?;
        while !bags.is_empty() {
            self.part()?;
            let mut bag = bags.sequence()?;
            let kind = bag.oid()?;
            let value = bag.explicit(0)?;
            match kind {
                KEY_BAG => self.keys.push(value.to_vec().into()),
                SHROUDED_KEY_BAG => {
                    let mut info = Der(value).sequence()?;
                    let algorithm = info.sequence()?;
                    self.keys
                        .push(cipher::decrypt(algorithm, info.octets()?, password, work)?);
                }
                CERT_BAG => {
                    let mut certificate = Der(value).sequence()?;
                    if certificate.oid()? == X509 {
                        self.certificates
                            .push(Der(certificate.explicit(0)?).octets()?.to_vec());
                    }
                }
                // Revocation lists, secrets, nested safes: not what a client certificate needs.
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

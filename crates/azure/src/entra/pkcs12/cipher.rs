//! Keys from passwords, and what they decrypt: PBES2 with PBKDF2 and AES or 3DES, and the older 3DES and RC2 of PKCS#12.
//! Every round of hashing is paid from a budget before it is made.

use std::num::NonZeroU32;

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipher, BlockDecryptMut, KeyInit, KeyIvInit};
use des::TdesEde3;
use rc2::Rc2;
use ring::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::der::{Der, Oid};
use super::{Password, Pkcs12Error};

/// Iterations that are made for one file. Exports of OpenSSL and Windows need some 10,000, careful ones 600,000 each for the key
/// and the certificates.
pub(super) const MAX_ROUNDS: u64 = 1_500_000;

// Source: RFC 8018, appendix A; RFC 7292, appendix C; NIST's registry of algorithms.
const PBES2: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d]);
const PBKDF2: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c]);
const SHA1_3DES: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03]);
const SHA1_RC2_40: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x06]);
const AES_128: Oid<'_> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02]);
const AES_192: Oid<'_> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x16]);
const AES_256: Oid<'_> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a]);
const DES_EDE3: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x07]);
const HMAC_SHA1: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x07]);
const HMAC_SHA256: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09]);
const HMAC_SHA384: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x0a]);
const HMAC_SHA512: Oid<'_> = Oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x0b]);
const SHA1: Oid<'_> = Oid(&[0x2b, 0x0e, 0x03, 0x02, 0x1a]);
const SHA256: Oid<'_> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01]);
const SHA384: Oid<'_> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02]);
const SHA512: Oid<'_> = Oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03]);

/// What may still be spent on a file.
pub(super) struct Work {
    left: u64,
}

impl Work {
    pub(super) fn new() -> Self {
        Self { left: MAX_ROUNDS }
    }

    pub(super) fn spend(&mut self, rounds: u32, blocks: usize) -> Result<(), Pkcs12Error> {
        let cost = u64::from(rounds).saturating_mul(u64::try_from(blocks).unwrap_or(u64::MAX));
        self.left = self.left.checked_sub(cost).ok_or(Pkcs12Error::Work)?;
        Ok(())
    }
}

#[derive(Clone, Copy)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) fn of_digest(oid: Oid<'_>) -> Result<Self, Pkcs12Error> {
        Ok(match oid {
            SHA1 => Self::Sha1,
            SHA256 => Self::Sha256,
            SHA384 => Self::Sha384,
            SHA512 => Self::Sha512,
            _ => {
                return Err(Pkcs12Error::Unsupported(
                    "a MAC other than HMAC with SHA-1 or SHA-2",
                ));
            }
        })
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    pub(super) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    pub(super) fn len(self) -> usize {
        self.digest().output_len()
    }
}

/// What a key is for. Source: RFC 7292, appendix B.3.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Encryption = 1,
    Vector = 2,
    Mac = 3,
}

/// Key material of `len` bytes. Source: RFC 7292, appendix B.2.
pub(super) fn derive(
    hash: Hash,
    purpose: Purpose,
    password: &[u8],
    salt: &[u8],
    rounds: u32,
    len: usize,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    if rounds == 0 || salt.is_empty() {
        return Err(Pkcs12Error::Malformed);
    }
    let block = hash.digest().block_len();
    work.spend(rounds, len.div_ceil(hash.len()))?;
    let filled = |text: &[u8]| -> Vec<u8> {
        text.iter()
            .copied()
            .cycle()
            .take(text.len().div_ceil(block) * block)
            .collect()
    };
    let mut input = Zeroizing::new(filled(salt));
    input.extend(filled(password));
    let mut derived = Zeroizing::new(Vec::with_capacity(len + hash.len()));
    while derived.len() < len {
        let mut first = digest::Context::new(hash.digest());
        first.update(&vec![purpose as u8; block]);
        first.update(&input);
        let mut hashed = first.finish();
        for _ in 1..rounds {
            hashed = digest::digest(hash.digest(), hashed.as_ref());
        }
        derived.extend_from_slice(hashed.as_ref());
        let added: Vec<u8> = hashed.as_ref().iter().copied().cycle().take(block).collect();
        for part in input.chunks_exact_mut(block) {
            let mut carry = 1_u16;
            for (byte, add) in part.iter_mut().zip(&added).rev() {
                let sum = u16::from(*byte) + u16::from(*add) + carry;
                [_, *byte] = sum.to_be_bytes();
                carry = sum >> 8;
            }
        }
    }
    derived.truncate(len);
    Ok(derived)
}

/// Decrypts what is encrypted by a password.
pub(super) fn decrypt(
    mut algorithm: Der<'_>,
    data: &[u8],
    password: &Password<'_>,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    match algorithm.oid()? {
        PBES2 => pbes2(algorithm.sequence()?, data, password.text, work),
        SHA1_3DES => older::<TdesEde3>(24, algorithm.sequence()?, data, &password.bmp, work),
        SHA1_RC2_40 => older::<Rc2>(5, algorithm.sequence()?, data, &password.bmp, work),
        _ => Err(Pkcs12Error::Unsupported(
            "a cipher other than PBES2, 3DES and RC2 with 40 bits",
        )),
    }
}

fn older<C>(
    key_len: usize,
    mut parameters: Der<'_>,
    data: &[u8],
    password: &[u8],
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error>
where
    C: BlockCipher + BlockDecryptMut + KeyInit,
{
    let salt = parameters.octets()?;
    let rounds = parameters.integer()?;
    let key = derive(
        Hash::Sha1,
        Purpose::Encryption,
        password,
        salt,
        rounds,
        key_len,
        work,
    )?;
    let vector = derive(Hash::Sha1, Purpose::Vector, password, salt, rounds, 8, work)?;
    cbc_decrypt::<C>(&key, &vector, data)
}

fn pbes2(
    mut parameters: Der<'_>,
    data: &[u8],
    password: &str,
    work: &mut Work,
) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error> {
    let mut function = parameters.sequence()?;
    if function.oid()? != PBKDF2 {
        // scrypt takes as much memory as the file says.
        return Err(Pkcs12Error::Unsupported("a key derivation other than PBKDF2"));
    }
    let mut function = function.sequence()?;
    let salt = function.octets()?;
    let rounds = NonZeroU32::new(function.integer()?).ok_or(Pkcs12Error::Malformed)?;
    if function.next_is(0x02) {
        // The key's length, which follows from the cipher.
        function.integer()?;
    }
    let hash = if function.is_empty() {
        Hash::Sha1
    } else {
        match function.sequence()?.oid()? {
            HMAC_SHA1 => Hash::Sha1,
            HMAC_SHA256 => Hash::Sha256,
            HMAC_SHA384 => Hash::Sha384,
            HMAC_SHA512 => Hash::Sha512,
            _ => {
                return Err(Pkcs12Error::Unsupported(
                    "PBKDF2 with something other than SHA-1 or SHA-2",
                ));
            }
        }
    };
    let mut scheme = parameters.sequence()?;
    let cipher = scheme.oid()?;
    let vector = scheme.octets()?;
    let len: usize = match cipher {
        AES_128 => 16,
        AES_192 | DES_EDE3 => 24,
        AES_256 => 32,
        _ => return Err(Pkcs12Error::Unsupported("a cipher other than AES and 3DES")),
    };
    work.spend(rounds.get(), len.div_ceil(hash.len()))?;
    let mut key = Zeroizing::new(vec![0; len]);
    pbkdf2::derive(hash.pbkdf2(), rounds, salt, password.as_bytes(), &mut key);
    match cipher {
        AES_128 => cbc_decrypt::<Aes128>(&key, vector, data),
        AES_192 => cbc_decrypt::<Aes192>(&key, vector, data),
        AES_256 => cbc_decrypt::<Aes256>(&key, vector, data),
        _ => cbc_decrypt::<TdesEde3>(&key, vector, data),
    }
}

fn cbc_decrypt<C>(key: &[u8], vector: &[u8], data: &[u8]) -> Result<Zeroizing<Vec<u8>>, Pkcs12Error>
where
    C: BlockCipher + BlockDecryptMut + KeyInit,
{
    let cipher =
        cbc::Decryptor::<C>::new_from_slices(key, vector).map_err(|_length| Pkcs12Error::Malformed)?;
    let mut data = Zeroizing::new(data.to_vec());
    let len = cipher
        .decrypt_padded_mut::<Pkcs7>(&mut data)
        .map_err(|_padding| Pkcs12Error::Password)?
        .len();
    data.truncate(len);
    Ok(data)
}

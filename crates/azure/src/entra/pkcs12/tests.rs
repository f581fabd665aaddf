//! Files of OpenSSL 3.0, and hostile ones. How they were made stands in fixtures/pkcs12/README.md.

use super::*;

const PASSWORD: &str = "s3cret ü";
const MODERN: &[u8] = include_bytes!("../../../../../fixtures/pkcs12/modern.p12");
const LEGACY: &[u8] = include_bytes!("../../../../../fixtures/pkcs12/legacy.p12");
const AES_128: &[u8] = include_bytes!("../../../../../fixtures/pkcs12/aes128.p12");
const CHAIN: &[u8] = include_bytes!("../../../../../fixtures/pkcs12/chain.p12");
const WORK: &[u8] = include_bytes!("../../../../../fixtures/pkcs12/work.p12");
const NO_KEY: &[u8] = include_bytes!("../../../../../fixtures/pkcs12/nokey.p12");

fn error(file: &[u8], password: &str) -> Pkcs12Error {
    open(file, password).err().unwrap()
}

#[test]
fn new_and_old_files_give_the_same_key_and_certificates() {
    let modern = open(MODERN, PASSWORD).unwrap();
    assert_eq!(modern.certificates.len(), 1);
    for (file, password, certificates) in [(LEGACY, PASSWORD, 1), (AES_128, "x", 1), (CHAIN, "", 2)] {
        let opened = open(file, password).unwrap();
        assert!(opened.key == modern.key && opened.certificates.len() == certificates);
        assert!(opened.certificates.contains(&modern.certificates[0]));
    }
}

#[test]
fn what_cannot_be_used_is_told_apart() {
    for file in [MODERN, LEGACY] {
        for password in ["", "s3cret u", "s3cret ü "] {
            assert_eq!(error(file, password), Pkcs12Error::Password, "{password:?}");
        }
    }
    assert_eq!(error(NO_KEY, "x"), Pkcs12Error::Keys(0));
    assert_eq!(error(b"-----BEGIN", ""), Pkcs12Error::Malformed);
    assert_eq!(error(&vec![0x30; MAX_FILE + 1], ""), Pkcs12Error::Size);
}

#[test]
fn no_file_makes_more_work_than_the_bound() {
    // Two million iterations, as it says itself: refused before the first of them.
    assert_eq!(error(WORK, "x"), Pkcs12Error::Work);
    // What is spent is spent: no number of small pieces comes to more.
    let mut work = Work::new();
    let spent = (0..1000).take_while(|_| work.spend(10_000, 1).is_ok()).count();
    assert_eq!(spent as u64, cipher::MAX_ROUNDS / 10_000);
    assert_eq!(Work::new().spend(u32::MAX, usize::MAX), Err(Pkcs12Error::Work));
}

#[test]
fn a_broken_file_is_an_error_at_every_place() {
    for file in [MODERN, LEGACY] {
        for length in 0..file.len() {
            assert!(open(&file[..length], PASSWORD).is_err(), "cut at {length}");
        }
        for at in (0..file.len()).step_by(211) {
            let mut broken = file.to_vec();
            broken[at] ^= 0x55;
            // A changed attribute or version is nobody's loss; nothing else opens, and nothing panics.
            let _any = open(&broken, PASSWORD).map(|opened| assert_eq!(opened.certificates.len(), 1));
        }
    }
}

#[test]
fn keys_are_derived_as_the_standard_says() {
    // Source: the first example of RFC 7292's algorithm that other implementations test with (password "smeg").
    let bmp: Vec<u8> = "smeg\0".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let salt = [0x0a, 0x58, 0xcf, 0x64, 0x53, 0x0d, 0x82, 0x3f];
    let key = cipher::derive(
        Hash::Sha1,
        cipher::Purpose::Encryption,
        &bmp,
        &salt,
        1,
        24,
        &mut Work::new(),
    )
    .unwrap();
    let expected = [
        0x8a, 0xaa, 0xe6, 0x29, 0x7b, 0x6c, 0xb0, 0x46, 0x42, 0xab, 0x5b, 0x07, 0x78, 0x51, 0x28, 0x4e, 0xb7,
        0x12, 0x8f, 0x1a, 0x2a, 0x7f, 0xbc, 0xa3,
    ];
    assert_eq!(*key, expected);
}

//! Just enough DER: what comes next, by its tag. Lengths are definite; what is broken is an error, never a guess.

use super::Pkcs12Error;

/// What is left of an encoding.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(pub(super) &'a [u8]);

/// An object identifier, as it is encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Oid<'a>(pub(super) &'a [u8]);

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

impl<'a> Der<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next_is(&self, tag: u8) -> bool {
        self.0.first() == Some(&tag)
    }

    /// The content of the next element, whose tag must be this one.
    pub(super) fn tagged(&mut self, tag: u8) -> Result<&'a [u8], Pkcs12Error> {
        let take = || -> Option<(&'a [u8], &'a [u8])> {
            let (first, rest) = self.0.split_first()?;
            if *first != tag {
                return None;
            }
            let (length, rest) = rest.split_first()?;
            let (length, rest) = match length {
                0..=0x7f => (usize::from(*length), rest),
                // Up to three bytes of length: more than any file that is looked at.
                0x81..=0x83 => {
                    let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
                    (
                        bytes
                            .iter()
                            .fold(0, |length, byte| length << 8 | usize::from(*byte)),
                        rest,
                    )
                }
                _ => return None,
            };
            rest.split_at_checked(length)
        };
        let (content, rest) = take().ok_or(Pkcs12Error::Malformed)?;
        self.0 = rest;
        Ok(content)
    }

    pub(super) fn sequence(&mut self) -> Result<Self, Pkcs12Error> {
        self.tagged(SEQUENCE).map(Self)
    }

    pub(super) fn octets(&mut self) -> Result<&'a [u8], Pkcs12Error> {
        self.tagged(OCTET_STRING)
    }

    pub(super) fn oid(&mut self) -> Result<Oid<'a>, Pkcs12Error> {
        self.tagged(OBJECT_IDENTIFIER).map(Oid)
    }

    /// The content of `[number]`, explicitly tagged.
    pub(super) fn explicit(&mut self, number: u8) -> Result<&'a [u8], Pkcs12Error> {
        self.tagged(0xa0 | number)
    }

    /// A number that is not negative and not too large.
    pub(super) fn integer(&mut self) -> Result<u32, Pkcs12Error> {
        let bytes = self.tagged(INTEGER)?;
        let digits = bytes.strip_prefix(&[0]).unwrap_or(bytes);
        let negative = bytes.first().is_none_or(|first| first & 0x80 != 0);
        if negative || digits.len() > 4 {
            return Err(Pkcs12Error::Malformed);
        }
        Ok(digits
            .iter()
            .fold(0, |number, digit| number << 8 | u32::from(*digit)))
    }
}

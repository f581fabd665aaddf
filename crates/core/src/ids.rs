//! Azure's ids, parsed once and compared without case: GUIDs (client, object, tenant) and ARM ids of managed identities.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use thiserror::Error;

/// A GUID: client id, object id or tenant id. Sixteen bytes, so that comparing and hashing cost nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(u128);

/// Why a text is not an id. The text names the value and the shape that was expected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not a GUID.
    #[error("{0:?} is not a GUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)")]
    Guid(String),
    /// Not the ARM id of a user-assigned managed identity.
    #[error(
        "{0:?} is not the ARM id of a managed identity \
         (/subscriptions/S/resourcegroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/N)"
    )]
    ResourceId(String),
}

impl FromStr for Guid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text).ok_or_else(|| IdError::Guid(shortened(text)))
    }
}

impl Guid {
    /// The GUID of these 128 bits.
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// Parses `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in any case; allocates nothing.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let mut bits: u128 = 0;
        for (at, byte) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16)?;
            bits = (bits << 4) | u128::from(digit);
        }
        Some(Self(bits))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |shift: u32, mask: u128| (self.0 >> shift) & mask;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 0xffff_ffff),
            part(80, 0xffff),
            part(64, 0xffff),
            part(48, 0xffff),
            part(0, 0xffff_ffff_ffff)
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// ARM id of a user-assigned managed identity. Keeps its spelling; equality and hash are without case, as in ARM.
#[derive(Clone)]
pub struct IdentityResourceId {
    text: Box<str>,
    /// Where the last segment starts, in bytes.
    name_at: usize,
}

/// The fixed segments of the id, between the three that vary.
const SHAPE: [Option<&str>; 8] = [
    Some("subscriptions"),
    None,
    Some("resourcegroups"),
    None,
    Some("providers"),
    Some("microsoft.managedidentity"),
    Some("userassignedidentities"),
    None,
];

impl FromStr for IdentityResourceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::ResourceId(shortened(text));
        let rest = text.strip_prefix('/').ok_or_else(wrong)?;
        let mut segments = rest.split('/');
        for fixed in SHAPE {
            let segment = segments.next().ok_or_else(wrong)?;
            let fits = match fixed {
                Some(fixed) => segment.eq_ignore_ascii_case(fixed),
                None => !segment.is_empty() && segment.bytes().all(in_segment),
            };
            if !fits {
                return Err(wrong());
            }
        }
        if segments.next().is_some() {
            return Err(wrong());
        }
        let name_at = text.rfind('/').map_or(0, |at| at + 1);
        Ok(Self {
            text: text.into(),
            name_at,
        })
    }
}

/// Characters that names of subscriptions, resource groups and identities may have.
/// Source: <https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules>.
fn in_segment(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'(' | b')') || !byte.is_ascii()
}

impl IdentityResourceId {
    /// The id as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The identity's own name, the last segment.
    pub fn name(&self) -> &str {
        self.text.get(self.name_at..).unwrap_or_default()
    }

    /// The subscription that it is in, the first segment that varies.
    pub fn subscription(&self) -> &str {
        self.text.split('/').nth(2).unwrap_or_default()
    }

    /// Whether `text` is this id, in any case. Allocates nothing.
    pub fn is(&self, text: &str) -> bool {
        self.text.eq_ignore_ascii_case(text)
    }
}

impl PartialEq for IdentityResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.text)
    }
}

impl Eq for IdentityResourceId {}

impl Hash for IdentityResourceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.text.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
        state.write_u8(0xff);
    }
}

impl fmt::Display for IdentityResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for IdentityResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// At most 100 characters of what was given, for error texts.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "/subscriptions/S1/resourcegroups/my-group/providers/Microsoft.ManagedIdentity/userAssignedIdentities/App_1";

    #[test]
    fn resource_ids_are_compared_without_case_and_keep_their_spelling() {
        let id: IdentityResourceId = ID.parse().unwrap();
        assert_eq!(id, ID.to_uppercase().parse().unwrap());
        assert_eq!((id.to_string().as_str(), id.name()), (ID, "App_1"));
        assert_eq!(id.subscription(), "S1");
    }

    #[test]
    fn other_shapes_are_refused_with_the_shape_expected() {
        for wrong in [
            "",
            "my-identity",
            &ID.replace("/userAssignedIdentities", "/identities"),
            &format!("{ID}/"),
            &format!("{ID}/federatedIdentityCredentials/x"),
            &ID.replace("my-group", ""),
            &ID.replace("App_1", "App 1"),
            &ID.replace("App_1", "App\n1"),
        ] {
            let error = wrong.parse::<IdentityResourceId>().unwrap_err().to_string();
            assert!(
                error.contains("Microsoft.ManagedIdentity/userAssignedIdentities"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_guid_is_the_same_in_any_case_and_prints_as_it_reads(bits: u128) {
            let guid = Guid::from_u128(bits);
            prop_assert_eq!(Guid::parse(&guid.to_string()), Some(guid));
            prop_assert_eq!(Guid::parse(&guid.to_string().to_uppercase()), Some(guid));
        }

        #[test]
        fn what_is_not_a_guid_never_panics(text in "\\PC{0,40}") {
            let _any = Guid::parse(&text);
            let _any = text.parse::<IdentityResourceId>();
        }
    }
}

//! Types of the flags, so that a bad value is named by its flag.

use std::str::FromStr;

/// A name that Kubernetes takes for a namespace or an object: letters a-z, digits and `-`, at most 63.
/// Source: RFC 1123 labels, <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

/// ARM id of a user-assigned identity, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityId(pub String);

/// A value of the pods' label `aadpodidbinding`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(pub String);

/// A client id or object id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guid(pub String);

/// `KEY=VALUE`, a label of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value, may be empty.
    pub value: String,
}

/// Why a flag's value was refused.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// Not a name.
    #[error(
        "`{0}` is not a name of Kubernetes: a-z, 0-9 and `-`, at most 63, a letter or digit first and last"
    )]
    Name(String),
    /// Not the id of an identity.
    #[error(
        "`{0}` is not the id of a user-assigned identity: \
         /subscriptions/S/resourceGroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/N"
    )]
    IdentityId(String),
    /// Not a label value.
    #[error("`{0}` is not a value for a label: letters, digits, `-`, `_` and `.`, at most 63")]
    LabelValue(String),
    /// Not a label.
    #[error("`{0}` is not a label: write KEY=VALUE")]
    Label(String),
    /// Not a GUID.
    #[error("`{0}` is not a GUID such as 11111111-2222-3333-4444-555555555555")]
    Guid(String),
}

impl Name {
    /// Whether `text` may be such a name.
    pub(crate) fn fits(text: &str) -> bool {
        (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    }
}

impl FromStr for Name {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        if Self::fits(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FlagError::Name(text.to_owned()))
        }
    }
}

impl IdentityId {
    /// The identity's own name, the last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for IdentityId {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        const WORDS: [&str; 5] = [
            "subscriptions",
            "resourceGroups",
            "providers",
            "Microsoft.ManagedIdentity",
            "userAssignedIdentities",
        ];
        let segments: Vec<&str> = text.split('/').collect();
        if let [
            "",
            subscriptions,
            subscription,
            groups,
            group,
            providers,
            provider,
            kind,
            name,
        ] = segments.as_slice()
            && WORDS
                .iter()
                .zip([subscriptions, groups, providers, provider, kind])
                .all(|(a, b)| a.eq_ignore_ascii_case(b))
            && [subscription, group, name].iter().all(|part| plain(part))
        {
            return Ok(Self(text.to_owned()));
        }
        Err(FlagError::IdentityId(text.to_owned()))
    }
}

/// A segment of an id with a value: present, printable, without spaces.
fn plain(segment: &str) -> bool {
    !segment.is_empty()
        && segment
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%' | '\\'))
}

fn label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.is_empty()
        || (text.len() <= 63
            && text.bytes().all(inner)
            && edge(text.bytes().next())
            && edge(text.bytes().next_back()))
}

impl FromStr for Selector {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        if !text.is_empty() && label_value(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FlagError::LabelValue(text.to_owned()))
        }
    }
}

impl FromStr for Label {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let refused = || FlagError::Label(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(refused)?;
        let (prefix, name) = key
            .split_once('/')
            .map_or((None, key), |(prefix, name)| (Some(prefix), name));
        let domain = |text: &str| text.len() <= 253 && text.split('.').all(Name::fits);
        if name.is_empty() || !label_value(name) || !prefix.is_none_or(domain) {
            return Err(refused());
        }
        if !label_value(value) {
            return Err(FlagError::LabelValue(value.to_owned()));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl FromStr for Guid {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        if groups == [8, 4, 4, 4, 12] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FlagError::Guid(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_any_case_and_nothing_else_is() {
        let id = "/subscriptions/s/resourcegroups/g/providers/microsoft.managedidentity/userassignedidentities/Web_1";
        assert_eq!(id.parse::<IdentityId>().unwrap().name(), "Web_1");
        for bad in [
            "",
            "web",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n/x",
            "/subscriptions//resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n ",
        ] {
            assert!(bad.parse::<IdentityId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_selectors_names_and_guids_are_kubernetes_and_azure_ones() {
        for good in ["app=web", "kubernetes.azure.com/managedby=aks", "empty="] {
            assert!(good.parse::<Label>().is_ok(), "{good}");
        }
        for bad in ["app", "=x", "a b=c", "app=-x", "UPPER.case/x=y", "app=a b"] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
        assert!("foo".parse::<Selector>().is_ok() && "".parse::<Selector>().is_err());
        assert!(
            "my-app".parse::<Name>().is_ok()
                && "My_App".parse::<Name>().is_err()
                && "-a".parse::<Name>().is_err()
        );
        "11111111-2222-3333-4444-55555555555F".parse::<Guid>().unwrap();
        "1111111-2222-3333-4444-5555555555555"
            .parse::<Guid>()
            .unwrap_err();
    }
}

//! Types of the flags, so that a bad value is named by its flag. Azure's ids are core's.

use std::str::FromStr;

/// A name that Kubernetes takes for a namespace or an object: letters a-z, digits and `-`, at most 63.
/// Source: RFC 1123 labels, <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

/// A value of the pods' label `aadpodidbinding`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(pub String);

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
    /// Not a label value.
    #[error("`{0}` is not a value for a label: letters, digits, `-`, `_` and `.`, at most 63")]
    LabelValue(String),
    /// Not a label.
    #[error("`{0}` is not a label: write KEY=VALUE")]
    Label(String),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_selectors_and_names_are_those_of_kubernetes() {
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
    }
}

//! Types of the flags, so that a bad value is named by its flag. Azure's ids are core's.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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

/// A duration as kubectl writes it: `90s`, `5m`, `1h30m`; a number alone is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

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
    /// Not a duration.
    #[error("`{0}` is not a duration: write it as 90s, 5m or 1h30m, and more than nothing")]
    Span(String),
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

impl FromStr for Span {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = || FlagError::Span(text.to_owned());
        let mut secs: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at_checked(digits).ok_or_else(wrong)?;
            let number: u64 = number.parse().map_err(|_not_one| wrong())?;
            let unit_len = after.chars().next().map_or(0, char::len_utf8);
            let (unit, after) = after.split_at_checked(unit_len).ok_or_else(wrong)?;
            let factor = match unit {
                "s" => 1,
                "" if rest.len() == text.len() => 1,
                "m" => 60,
                "h" => 3600,
                _ => return Err(wrong()),
            };
            secs = number
                .checked_mul(factor)
                .and_then(|more| secs.checked_add(more))
                .ok_or_else(wrong)?;
            rest = after;
        }
        // Longer than a year is a typing error, and more than a timer takes.
        if secs == 0 || secs > 366 * 24 * 3600 {
            return Err(wrong());
        }
        Ok(Self(Duration::from_secs(secs)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let parts = [(secs / 3600, "h"), (secs / 60 % 60, "m"), (secs % 60, "s")];
        let mut none = true;
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            none = false;
            write!(f, "{number}{unit}")?;
        }
        if none { f.write_str("0s") } else { Ok(()) }
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
    fn labels_selectors_names_and_durations_are_those_of_kubernetes() {
        for good in ["app=web", "kubernetes.azure.com/managedby=aks", "empty="] {
            assert!(good.parse::<Label>().is_ok(), "{good}");
        }
        for bad in ["app", "=x", "a b=c", "app=-x", "UPPER.case/x=y", "app=a b"] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
        for (text, secs) in [("90s", 90), ("5m", 300), ("1h30m", 5400), ("7", 7)] {
            assert_eq!(text.parse::<Span>().unwrap().0.as_secs(), secs, "{text}");
        }
        for bad in ["", "0s", "5x", "m", "-1s", "5m3", "99999999h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(Span(Duration::from_mins(90)).to_string(), "1h30m");
        assert!("foo".parse::<Selector>().is_ok() && "".parse::<Selector>().is_err());
        assert!(
            "my-app".parse::<Name>().is_ok()
                && "My_App".parse::<Name>().is_err()
                && "-a".parse::<Name>().is_err()
        );
    }
}

//! Query strings and form bodies, kept in order and with their duplicates, so that those who mind can see them.

/// A parsed query or form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses `a=b&c=d` as form data: `+` is a space, `%XX` a byte. Nothing is refused here.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                (decode(name, true), decode(value, true))
            })
            .collect();
        Self { pairs }
    }

    /// The first value under exactly that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value under that name in any case, as ARM reads its parameters; empty counts as absent.
    pub(crate) fn arm(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All pairs, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A name that occurs more than once, in any case.
    pub(crate) fn duplicate(&self) -> Option<&str> {
        let mut seen = std::collections::HashSet::new();
        self.pairs
            .iter()
            .map(|(name, _)| name.as_str())
            .find(|name| !seen.insert(name.to_ascii_lowercase()))
    }
}

/// Decodes `%XX` once; what is not UTF-8 becomes the replacement character, a broken escape stays as it is.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if plus_is_space => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                if let Some(value) = hex_byte(&mut ahead) {
                    out.push(value);
                    bytes = ahead;
                } else {
                    out.push(b'%');
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The byte that two hexadecimal digits name.
fn hex_byte(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
    let (high, low) = (digit()?, digit()?);
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_and_escaped_values_read_the_same() {
        let raw = Query::parse("resource=https://vault.azure.net&api-version=2018-02-01");
        let escaped = Query::parse("api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net");
        assert_eq!(raw.get("resource"), escaped.get("resource"));
        assert_eq!(Query::parse("a=%zz%4").get("a"), Some("%zz%4"));
        assert_eq!(
            Query::parse("$filter=roleName%20eq+'Reader'").arm("$FILTER"),
            Some("roleName eq 'Reader'")
        );
    }

    #[test]
    fn a_name_given_twice_is_seen_in_any_case() {
        assert_eq!(Query::parse("a=1&b=2&A=3").duplicate(), Some("A"));
        assert_eq!(Query::parse("a=1&b=2").duplicate(), None);
    }
}

//! Types of the flags, so that a bad value is named by its flag.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use serde::{Serialize, Serializer};

/// A base URL: https, or plain http to this machine or to the metadata address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

/// A length of time: `100s`, `5m`, `1h`, `250ms`, or seconds without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

/// Why a flag's value was refused.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// Not a URL at all.
    #[error("`{0}` is not a URL")]
    Url(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// A token would travel in the clear.
    #[error("`{0}` must be https: a token would travel in the clear")]
    Clear(String),
    /// No length of time.
    #[error("`{0}` is not a length of time above zero such as 100s, 5m or 1h")]
    Period(String),
}

impl Endpoint {
    /// `path` below this endpoint; `path` starts with a slash.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0.as_str().trim_end_matches('/'))
    }

    /// The path of these segments below this endpoint; each is escaped, so that a flag's value cannot leave its place.
    pub(crate) fn segments(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Whether `url` is at the same origin, so that what was given to this endpoint may be given there.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }
}

impl FromStr for Endpoint {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let url = Url::parse(text).map_err(|source| FlagError::Url(text.to_owned(), Box::new(source)))?;
        let near = |address: IpAddr| {
            address.is_loopback() || matches!(address, IpAddr::V4(v4) if v4.is_link_local())
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if host == "localhost" || host.parse().is_ok_and(near) => Ok(Self(url)),
            _ => Err(FlagError::Clear(text.to_owned())),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl FromStr for Period {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let refused = || FlagError::Period(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).ok_or_else(refused)?;
        let number: u64 = number.parse().map_err(|_not_a_number| refused())?;
        let millis = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(refused()),
        };
        match number.checked_mul(millis) {
            None | Some(0) => Err(refused()),
            Some(millis) => Ok(Self(Duration::from_millis(millis))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_number_with_a_unit_and_never_zero() {
        for (text, millis) in [
            ("100s", 100_000),
            ("100", 100_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("20ms", 20),
        ] {
            assert_eq!(
                text.parse::<Period>().unwrap().0,
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "0s",
            "1.5s",
            "-1s",
            "1d",
            "99999999999999999999h",
            "18446744073709551615h",
        ] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_never_travels_in_the_clear_to_another_machine() {
        for text in [
            "https://management.azure.com",
            "http://127.0.0.1:8080",
            "http://[::1]:1",
            "http://169.254.169.254",
        ] {
            assert!(text.parse::<Endpoint>().is_ok(), "{text}");
        }
        for text in [
            "http://management.azure.com",
            "http://10.0.0.1",
            "ftp://x",
            "management.azure.com",
            "",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn another_port_is_another_origin() {
        let endpoint: Endpoint = "https://arm.test/".parse().unwrap();
        assert!(endpoint.owns(&Url::parse("https://arm.test/x?y").unwrap()));
        assert!(!endpoint.owns(&Url::parse("https://arm.test:8443/x").unwrap()));
        assert_eq!(endpoint.join("/x"), "https://arm.test/x");
    }

    #[test]
    fn a_group_with_a_slash_stays_one_segment() {
        let endpoint: Endpoint = "https://arm.test/".parse().unwrap();
        assert_eq!(
            endpoint.segments(&["groups", "a/b?c"]).as_str(),
            "https://arm.test/groups/a%2Fb%3Fc"
        );
    }
}

//! Which authorities may be asked: HTTPS, and known to the operator.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use thiserror::Error;

use crate::cloud::Cloud;

/// Base URL of an authority: scheme, host and port, no path.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority(Url);

/// Why an authority is not asked.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// Not the base URL of one.
    #[error("{0:?} is not an authority: expected something like https://login.microsoftonline.com/")]
    Invalid(String),
    /// Not one of those that the operator knows.
    #[error("the authority {0:?} is not an allowed one; the operator of the agent can allow it")]
    NotAllowed(String),
}

/// The authorities that may be asked.
#[derive(Clone, Debug)]
pub struct Authorities {
    default: Authority,
    allowed: Vec<Authority>,
}

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let wrong = || AuthorityError::Invalid(text.chars().take(100).collect());
        let url = Url::parse(text).map_err(|_unreadable| wrong())?;
        let plain = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain || !url.has_host() || !matches!(url.scheme(), "https" | "http") {
            return Err(wrong());
        }
        Ok(Self(url))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Authority {
    /// Whether what is sent there can be read on the way.
    pub fn is_insecure(&self) -> bool {
        self.0.scheme() != "https"
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }
}

impl Authorities {
    /// `default`, and every authority of Azure's clouds. What the operator names is trusted, also without TLS.
    pub fn new(default: Authority) -> Self {
        let clouds = Cloud::all().filter_map(|cloud| cloud.authority().parse().ok());
        Self {
            default,
            allowed: clouds.collect(),
        }
    }

    /// One more that identities may name.
    #[must_use]
    pub fn allow(mut self, authority: Authority) -> Self {
        self.allowed.push(authority);
        self
    }

    /// The names of all of them, the default first.
    pub fn names(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.default)
            .chain(&self.allowed)
            .map(ToString::to_string)
    }

    /// The one that is asked when an identity names `named`.
    pub(crate) fn choose(&self, named: Option<&str>) -> Result<&Authority, AuthorityError> {
        let Some(named) = named.filter(|named| !named.is_empty()) else {
            return Ok(&self.default);
        };
        let named: Authority = named.parse()?;
        std::iter::once(&self.default)
            .chain(&self.allowed)
            .find(|known| **known == named)
            .ok_or_else(|| AuthorityError::NotAllowed(named.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_authorities_are_asked() {
        let authorities = Authorities::new("https://entra.example:8443".parse().unwrap());
        let choose = |named| authorities.choose(named).map(ToString::to_string);
        assert_eq!(choose(None).unwrap(), "https://entra.example:8443/");
        assert_eq!(choose(Some("")).unwrap(), "https://entra.example:8443/");
        assert_eq!(
            choose(Some("HTTPS://LOGIN.microsoftonline.us")).unwrap(),
            "https://login.microsoftonline.us/"
        );
        for named in [
            "https://evil.example/",
            "http://login.microsoftonline.com/",
            "https://login.microsoftonline.com:444/",
            "https://login.microsoftonline.com@evil.example/",
            "https://login.microsoftonline.com/../evil/",
            "https://login.microsoftonline.com.evil.example/",
            "https://login.microsoftonline.com/tenant",
            "login.microsoftonline.com",
            "file:///etc/passwd",
        ] {
            assert!(choose(Some(named)).is_err(), "{named}");
        }
    }
}

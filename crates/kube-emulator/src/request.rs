//! What a request says beside its body: query parameters, wanted media types, where its path leads.

use http::HeaderMap;

use crate::status::ApiError;
use crate::write::{FieldValidation, How};

/// The query parameters of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query string.
    pub(crate) fn read(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// A parameter, empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(one, _)| one == name)
            .map_or("", |(_, value)| value.as_str())
    }

    /// Whether a parameter is there and not false.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1" | "True" | "TRUE" | "t")
    }

    /// A number, none when it is not there.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|error| {
            ApiError::bad_request(format!("parameter {name}: {text:?} is not a number: {error}"))
        })
    }

    /// How a write is meant. Who does not say a field manager is named by the user agent's first part.
    pub(crate) fn how(&self, headers: &HeaderMap, apply: bool) -> Result<How, ApiError> {
        let dry_run = match self.text("dryRun") {
            "" => false,
            "All" => true,
            other => {
                return Err(ApiError::bad_request(format!(
                    "dryRun: Unsupported value: {other:?}: supported values: \"All\""
                )));
            }
        };
        let validation = match self.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        let agent = header(headers, &http::header::USER_AGENT)
            .split('/')
            .next()
            .unwrap_or_default();
        let manager = match self.text("fieldManager") {
            "" if apply => String::new(),
            "" if agent.is_empty() => "unknown".to_owned(),
            "" => agent.to_owned(),
            manager => manager.to_owned(),
        };
        Ok(How {
            manager,
            dry_run,
            validation,
        })
    }
}

/// A header as text, empty when it is not there.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Undoes percent encoding; in queries `+` is a space.
pub(crate) fn decode(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
        match byte {
            b'%' => {
                let mut ahead = rest.clone();
                if let (Some(high), Some(low)) = (hex(ahead.next()), hex(ahead.next())) {
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                    rest = ahead;
                } else {
                    bytes.push(byte);
                }
            }
            b'+' if plus => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// In which form objects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// As rows for people.
    Table,
    /// Only their metadata.
    Partial,
}

/// The first form that the client accepts and this server has. Only JSON is spoken: who accepts nothing else gets 406.
pub(crate) fn negotiate(accept: &str) -> Result<Form, ApiError> {
    if accept.trim().is_empty() {
        return Ok(Form::Plain);
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            continue;
        }
        let wanted: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let of = |name: &str| {
            wanted
                .iter()
                .find(|(one, _)| *one == name)
                .map_or("", |(_, value)| *value)
        };
        let meta = of("g") == "meta.k8s.io" && of("v") == "v1";
        match of("as") {
            "" => return Ok(Form::Plain),
            "Table" if meta => return Ok(Form::Table),
            "PartialObjectMetadata" | "PartialObjectMetadataList" if meta => return Ok(Form::Partial),
            _ => {}
        }
    }
    Err(ApiError::not_acceptable())
}

/// Where a path leads, below `/api/v1` or `/apis/<group>/<version>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty for all namespaces and for what is in none.
    pub(crate) namespace: String,
    pub(crate) plural: String,
    /// Empty for the collection.
    pub(crate) name: String,
    pub(crate) subresource: String,
}

impl Place {
    /// Reads the path of a resource.
    pub(crate) fn read(path: &str) -> Option<Self> {
        let parts: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|part| decode(part, false))
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, plural, name, subresource) = match rest {
            [plural] => ("", *plural, "", ""),
            ["namespaces", name] => ("", "namespaces", *name, ""),
            ["namespaces", name, subresource @ ("status" | "finalize")] => {
                ("", "namespaces", *name, *subresource)
            }
            ["namespaces", namespace, plural] => (*namespace, *plural, "", ""),
            ["namespaces", namespace, plural, name] => (*namespace, *plural, *name, ""),
            ["namespaces", namespace, plural, name, subresource] => {
                (*namespace, *plural, *name, *subresource)
            }
            [plural, name] => ("", *plural, *name, ""),
            [plural, name, subresource] => ("", *plural, *name, *subresource),
            _ => return None,
        };
        let owned = |text: &str| text.to_owned();
        Some(Self {
            group: owned(group),
            version: owned(version),
            namespace: owned(namespace),
            plural: owned(plural),
            name: owned(name),
            subresource: owned(subresource),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> [String; 6] {
        let place = Place::read(path).unwrap();
        [
            place.group,
            place.version,
            place.namespace,
            place.plural,
            place.name,
            place.subresource,
        ]
    }

    #[test]
    fn paths_lead_to_resources() {
        assert_eq!(
            place("/api/v1/namespaces/a"),
            ["", "v1", "", "namespaces", "a", ""]
        );
        assert_eq!(
            place("/api/v1/namespaces/a/status"),
            ["", "v1", "", "namespaces", "a", "status"]
        );
        assert_eq!(
            place("/api/v1/namespaces/a/pods/b/log"),
            ["", "v1", "a", "pods", "b", "log"]
        );
        assert_eq!(
            place("/apis/g.io/v1/things/x/status"),
            ["g.io", "v1", "", "things", "x", "status"]
        );
        assert_eq!(Place::read("/apis/g.io"), None);
    }

    #[test]
    fn the_first_form_that_is_spoken_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(table).unwrap(), Form::Table);
        assert_eq!(
            negotiate("application/vnd.kubernetes.protobuf,application/json").unwrap(),
            Form::Plain
        );
        negotiate("application/vnd.kubernetes.protobuf").unwrap_err();
    }

    #[test]
    fn queries_are_decoded() {
        let params = Params::read("labelSelector=a%3Db%2Cc&x=1+2&watch=true");
        assert_eq!(params.text("labelSelector"), "a=b,c");
        assert_eq!(params.text("x"), "1 2");
        assert!(params.flag("watch"));
    }
}

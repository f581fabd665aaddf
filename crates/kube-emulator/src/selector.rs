//! Label and field selectors: parsing and matching.

use serde_json::Value;

use crate::json;
use crate::status::ApiError;

/// Label selector and field selector of one list or watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRule {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Clone, Debug)]
struct FieldRule {
    field: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Reads the two query parameters; `allowed` are the resource's field labels.
    pub(crate) fn parse(labels: &str, fields: &str, allowed: &[String]) -> Result<Self, ApiError> {
        let labels = parse_labels(labels)?;
        let fields = parse_fields(fields)?;
        // Kinds with no labels of their own are told what there is.
        let custom_labels = allowed.len() != 2;
        for rule in &fields {
            if !allowed.contains(&rule.field) {
                return Err(ApiError::bad_request(if custom_labels {
                    format!("field label not supported: {}", rule.field)
                } else {
                    let known: Vec<String> = allowed.iter().map(|field| format!("{field:?}")).collect();
                    format!(
                        "{:?} is not a known field selector: only {}",
                        rule.field,
                        known.join(", ")
                    )
                }));
            }
        }
        Ok(Self { labels, fields })
    }

    /// Whether everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether `object` matches.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|rule| rule.matches(object))
            && self
                .fields
                .iter()
                .all(|rule| (field(object, &rule.field) == rule.value) == rule.equal)
    }
}

impl LabelRule {
    fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| json::at(object, &["metadata", "labels", key]).and_then(Value::as_str);
        match self {
            Self::In(key, values) => label(key).is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(key, values) => label(key).is_none_or(|value| values.iter().all(|one| one != value)),
            Self::Exists(key) => label(key).is_some(),
            Self::Absent(key) => label(key).is_none(),
        }
    }
}

/// The value of a field label, as the API server prints it: absent is the empty string.
fn field(object: &Value, path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match json::at(object, &parts) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(value)) => value.to_string(),
        _ if path == "spec.unschedulable" => "false".to_owned(),
        _ => String::new(),
    }
}

fn parse_fields(text: &str) -> Result<Vec<FieldRule>, ApiError> {
    let mut rules = Vec::new();
    for term in text.split(',').filter(|term| !term.is_empty()) {
        let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (field, value, true)
        } else {
            return Err(ApiError::bad_request(format!(
                "invalid selector: '{text}'; can't understand '{term}'"
            )));
        };
        rules.push(FieldRule {
            field: field.trim().to_owned(),
            value: value.trim().to_owned(),
            equal,
        });
    }
    Ok(rules)
}

fn parse_labels(text: &str) -> Result<Vec<LabelRule>, ApiError> {
    let mut rules = Vec::new();
    for term in terms(text) {
        let term = term.trim();
        if term.is_empty() {
            continue;
        }
        let bad = || {
            ApiError::bad_request(format!(
                "unable to parse requirement: found '{term}', expected: a label selector"
            ))
        };
        if let Some((key, value)) = term.split_once("!=") {
            rules.push(LabelRule::NotIn(
                key.trim().to_owned(),
                vec![value.trim().to_owned()],
            ));
        } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            rules.push(LabelRule::In(
                key.trim().to_owned(),
                vec![value.trim().to_owned()],
            ));
        } else if let Some(rest) = term.strip_suffix(')') {
            let (head, values) = rest.split_once('(').ok_or_else(bad)?;
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            match head.split_whitespace().collect::<Vec<_>>().as_slice() {
                [key, "in"] => rules.push(LabelRule::In((*key).to_owned(), values)),
                [key, "notin"] => rules.push(LabelRule::NotIn((*key).to_owned(), values)),
                _ => return Err(bad()),
            }
        } else if let Some(key) = term.strip_prefix('!') {
            rules.push(LabelRule::Absent(key.trim().to_owned()));
        } else if term.contains(char::is_whitespace) {
            return Err(bad());
        } else {
            rules.push(LabelRule::Exists(term.to_owned()));
        }
    }
    Ok(rules)
}

/// Splits at commas that are not inside parentheses.
fn terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut depth = 0_u32;
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if character == ',' && depth == 0 {
            terms.push(String::new());
        } else if let Some(last) = terms.last_mut() {
            last.push(character);
        }
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_of_every_form_match_as_kubectl_means_them() {
        let pod = json!({ "metadata": { "labels": { "app": "a", "tier": "x" } } });
        for (text, expected) in [
            ("app=a", true),
            ("app==a,tier!=y", true),
            ("app in (a, b),tier", true),
            ("app notin (a,b)", false),
            ("!app", false),
            ("!other,other!=z", true),
            ("other", false),
        ] {
            let selector = Selector::parse(text, "", &[]).unwrap();
            assert_eq!(selector.matches(&pod), expected, "{text}");
        }
    }

    #[test]
    fn a_field_that_is_no_field_label_is_refused() {
        let allowed = ["metadata.name".to_owned()];
        Selector::parse("", "spec.x=1", &allowed).unwrap_err();
        Selector::parse("", "metadata.name!=a", &allowed).unwrap();
    }
}

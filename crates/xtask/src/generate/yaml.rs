//! JSON as block YAML, stable to the byte.

use serde_json::Value;

/// JSON as block YAML. Every text that is not plainly a text is quoted as JSON, which YAML understands.
pub(super) fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                pad(indent, out);
                out.push_str(&scalar_text(key));
                out.push(':');
                member(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                pad(indent, out);
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        let mut nested = String::new();
                        block(item, indent + 2, &mut nested);
                        out.push_str("- ");
                        out.push_str(nested.trim_start_matches(' '));
                    }
                    // A list in a list is indented, unlike one below a key.
                    Value::Array(inner) if !inner.is_empty() => {
                        out.push_str("-\n");
                        block(item, indent + 2, out);
                    }
                    _ => {
                        out.push('-');
                        member(item, indent, out);
                    }
                }
            }
        }
        _ => {}
    }
}

/// What stands after `key:` or `-`.
fn member(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, indent, out);
        }
        Value::String(text) => {
            out.push(' ');
            out.push_str(&scalar_text(text));
            out.push('\n');
        }
        other => {
            out.push(' ');
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A text as a YAML scalar.
fn scalar_text(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " -_./()".contains(c))
        && !text.ends_with(' ')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_that_yaml_would_read_as_something_else_are_quoted() {
        let value =
            json!({ "a": "true", "b": "1", "c": "plain words", "d": "x: y", "e": [["f"], {}], "g": "" });
        let expected = "a: \"true\"\nb: \"1\"\nc: plain words\nd: \"x: y\"\ne:\n-\n  - f\n- {}\ng: \"\"\n";
        assert_eq!(yaml(&value), expected);
    }
}

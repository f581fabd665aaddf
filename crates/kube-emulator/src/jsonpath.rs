//! The JSON paths of printer columns: `.spec.x`, `.a[0].b`, `.conditions[?(@.type=='Ready')].status`, `.a['b.c']`.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    /// Items whose field at a path equals a text.
    Where(Vec<String>, String),
}

impl Path {
    /// Reads a path.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.trim();
        rest = rest
            .strip_prefix('{')
            .and_then(|inner| inner.strip_suffix('}'))
            .unwrap_or(rest);
        rest = rest.strip_prefix('$').unwrap_or(rest);
        if !rest.starts_with(['.', '[']) {
            return Err("must be a simple json path starting with .".to_owned());
        }
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = after.find(']').ok_or("`[` without `]`")?;
                let (inner, tail) = after.split_at(end);
                steps.push(bracket(inner)?);
                rest = tail.strip_prefix(']').unwrap_or_default();
            } else {
                let after = rest
                    .strip_prefix('.')
                    .ok_or_else(|| format!("unexpected `{rest}`"))?;
                let mut name = String::new();
                let mut chars = after.char_indices();
                let mut end = after.len();
                while let Some((at, char)) = chars.next() {
                    match char {
                        '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
                        '.' | '[' => {
                            end = at;
                            break;
                        }
                        other => name.push(other),
                    }
                }
                if !name.is_empty() {
                    steps.push(Step::Field(name));
                }
                rest = after.get(end..).unwrap_or_default();
            }
        }
        Ok(Self(steps))
    }

    /// All values at this path.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|value| -> Vec<&Value> {
                    match step {
                        Step::Field(name) => value.get(name).into_iter().collect(),
                        Step::Index(index) => value.get(*index).into_iter().collect(),
                        Step::All => value.as_array().into_iter().flatten().collect(),
                        Step::Where(path, wanted) => value
                            .as_array()
                            .into_iter()
                            .flatten()
                            .filter(|item| {
                                let field = path.iter().try_fold(*item, |item, name| item.get(name));
                                field.is_some_and(|field| plain(field) == *wanted)
                            })
                            .collect(),
                    }
                })
                .collect();
        }
        found
    }
}

fn bracket(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (path, wanted) = condition
            .split_once("==")
            .ok_or_else(|| format!("only `==` is understood in `{condition}`"))?;
        let path = path
            .trim()
            .strip_prefix("@.")
            .ok_or("a condition begins with `@.`")?;
        let wanted = wanted.trim().trim_matches(['\'', '"']);
        return Ok(Step::Where(
            path.split('.').map(str::to_owned).collect(),
            wanted.to_owned(),
        ));
    }
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Some(name) = inner.strip_prefix(['\'', '"']) {
        return Ok(Step::Field(name.trim_end_matches(['\'', '"']).to_owned()));
    }
    inner
        .parse()
        .map(Step::Index)
        .map_err(|error| format!("`[{inner}]` is not understood: {error}"))
}

/// A value as text: strings bare, others as JSON.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns_find_what_they_name() {
        let object = json!({ "a": { "b.c": [1, 2] }, "list": [{ "type": "X", "v": "no" }, { "type": "Y", "v": "yes" }] });
        for (path, found) in [
            (".a['b.c'][1]", vec![json!(2)]),
            (".a.b\\.c[0]", vec![json!(1)]),
            (".list[?(@.type=='Y')].v", vec![json!("yes")]),
            (".list[*].v", vec![json!("no"), json!("yes")]),
            (".missing.x", vec![]),
        ] {
            let values: Vec<Value> = Path::parse(path)
                .unwrap()
                .find(&object)
                .into_iter()
                .cloned()
                .collect();
            assert_eq!(values, found, "{path}");
        }
        Path::parse("spec.a").unwrap_err();
        Path::parse(".a[?(@.x>1)]").unwrap_err();
    }
}

//! Paths: decoded once, compared without case, shown as they were written.

use crate::query::decode;

/// The segments of a path, without the empty ones.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    shown: Vec<String>,
    lower: Vec<String>,
}

impl Segments {
    /// Splits and decodes a raw path.
    pub(crate) fn parse(path: &str) -> Self {
        let shown: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| decode(part, false))
            .collect();
        let lower = shown.iter().map(|part| part.to_ascii_lowercase()).collect();
        Self { shown, lower }
    }

    /// In lower case, for matching.
    pub(crate) fn lower(&self) -> Vec<&str> {
        self.lower.iter().map(String::as_str).collect()
    }

    /// As it was written; empty when there is no such segment.
    pub(crate) fn shown(&self, at: usize) -> &str {
        self.shown.get(at).map_or("", String::as_str)
    }

    /// `/a/b` of the first `count` segments as they were written.
    pub(crate) fn join_shown(&self, count: usize) -> String {
        join(self.shown.iter().take(count))
    }

    /// `/a/b` of the first `count` segments in lower case: the key of a resource.
    pub(crate) fn join_lower(&self, count: usize) -> String {
        join(self.lower.iter().take(count))
    }

    /// Where the last `provider` of `.../providers/<provider>/...` stands, counted to `providers`.
    pub(crate) fn last_provider(&self, provider: &str) -> Option<usize> {
        self.lower
            .windows(2)
            .rposition(|pair| matches!(pair, [a, b] if a == "providers" && b == provider))
    }
}

fn join<'a>(parts: impl Iterator<Item = &'a String>) -> String {
    parts.fold(String::new(), |mut all, part| {
        all.push('/');
        all.push_str(part);
        all
    })
}

/// The key of a resource: its ARM id in lower case, without a slash at the end.
pub(crate) fn key(id: &str) -> String {
    id.trim_end_matches('/').to_ascii_lowercase()
}

/// Whether `key` is `scope` or lies under it; both are keys. Everything lies under the root, which is empty.
pub(crate) fn within(key: &str, scope: &str) -> bool {
    key.strip_prefix(scope)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The last segment.
pub(crate) fn name_of(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_ends_at_a_segment() {
        assert!(within("/subscriptions/s/resourcegroups/a", "/subscriptions/s"));
        assert!(!within("/subscriptions/s2", "/subscriptions/s"));
        assert!(within("/subscriptions/s", ""));
    }

    #[test]
    fn the_last_provider_splits_the_scope_from_the_assignment() {
        let path = Segments::parse(
            "/subscriptions/S/providers/Microsoft.Authorization/x/providers/Microsoft.Authorization/roleAssignments/1",
        );
        assert_eq!(path.last_provider("microsoft.authorization"), Some(5));
        assert_eq!(path.join_shown(2), "/subscriptions/S");
    }
}

//! The path of a request, normalised once and then allowed by list.

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The token endpoint.
    Token,
    /// A path of the metadata service that may be passed on, by policy; `path` is its canonical spelling.
    Path {
        /// Which policy applies.
        group: PathGroup,
        /// What goes upstream: absolute, only unreserved characters and `/`.
        path: String,
    },
    /// Never there, whoever asks: the second version of the identity endpoint, which clients probe for.
    NotFound,
    /// Could be read in more than one way.
    Invalid,
}

/// Groups of paths that share a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathGroup {
    /// `/metadata/instance…`
    Instance,
    /// `/metadata/attested…`
    Attested,
    /// `/metadata/scheduledevents…`
    ScheduledEvents,
    /// `/metadata/identity/…` other than tokens; never passed to a pod without an exception.
    Identity,
    /// Everything else.
    Other,
}

/// The token path in its canonical spelling.
pub const TOKEN_PATH: &str = "/metadata/identity/oauth2/token";

/// Longest path that is looked at, in bytes. The longest real one has fewer than 100.
const MAX_PATH: usize = 1024;

impl Route {
    /// Reads the path of a request target, as it was sent: percent-encoded, without query.
    ///
    /// Decodes once; then only unreserved characters are allowed, so that a second decoding, a backslash, a control
    /// character or a homograph cannot change the meaning. Empty and dot segments are resolved. The fixed segments are
    /// compared without case: a server may or may not care for case, and neither reading may get past us.
    pub fn parse(raw: &str) -> Self {
        if raw == TOKEN_PATH {
            return Self::Token;
        }
        let Some(segments) = segments(raw) else {
            return Self::Invalid;
        };
        let is = |at: usize, name: &str| {
            segments
                .get(at)
                .is_some_and(|segment| segment.eq_ignore_ascii_case(name))
        };
        if !is(0, "metadata") {
            return Self::path(PathGroup::Other, &[], &segments);
        }
        let (group, fixed): (_, &[&str]) = if is(1, "identity") {
            if is(2, "oauth2") && is(3, "token") {
                // Below the token path there is nothing; the original took such paths for the token path.
                return if segments.len() == 4 {
                    Self::Token
                } else {
                    Self::NotFound
                };
            }
            if is(2, "getplatformmetadata") || is(2, "issuecredential") || is(2, "oauth2") {
                return Self::NotFound;
            }
            (PathGroup::Identity, &["metadata", "identity"])
        } else if is(1, "instance") {
            (PathGroup::Instance, &["metadata", "instance"])
        } else if is(1, "attested") {
            (PathGroup::Attested, &["metadata", "attested"])
        } else if is(1, "scheduledevents") {
            (PathGroup::ScheduledEvents, &["metadata", "scheduledevents"])
        } else {
            (PathGroup::Other, &["metadata"])
        };
        Self::path(group, fixed, &segments)
    }

    /// A path of `fixed`, in its own spelling, and the rest as it was sent.
    fn path(group: PathGroup, fixed: &[&str], segments: &[String]) -> Self {
        let rest = segments.iter().skip(fixed.len()).map(String::as_str);
        let mut path = String::new();
        for segment in fixed.iter().copied().chain(rest) {
            path.push('/');
            path.push_str(segment);
        }
        if path.is_empty() {
            path.push('/');
        }
        Self::Path { group, path }
    }
}

/// The segments after one decoding, dots resolved; none when the path cannot be read in one way only.
fn segments(raw: &str) -> Option<Vec<String>> {
    if raw.len() > MAX_PATH || !raw.starts_with('/') {
        return None;
    }
    let mut decoded = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            hex(bytes.next()?)? << 4 | hex(bytes.next()?)?
        } else {
            byte
        };
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
        if !plain {
            return None;
        }
        decoded.push(char::from(byte));
    }
    let mut segments = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            // Above the root there is nothing to go to; servers differ in what they make of it.
            ".." => {
                segments.pop()?;
            }
            segment => segments.push(segment.to_owned()),
        }
    }
    Some(segments)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_token_path_is_ours_in_every_spelling_that_can_be_read_in_one_way() {
        for path in [
            "/metadata/identity/oauth2/token",
            "/metadata/identity/oauth2/token/",
            "//metadata/identity/oauth2/token/",
            "/METADATA/Identity/OAuth2/TOKEN",
            "/metadata/identity/oauth2/tok%65n",
            "/metadata%2Fidentity%2Foauth2%2ftoken",
            "/metadata/./identity/oauth2/token",
            "/foo/../metadata/identity/oauth2/token",
            "/metadata/%2e%2e/metadata/identity/oauth2/token",
        ] {
            assert_eq!(Route::parse(path), Route::Token, "{path}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for path in [
            "/metadata/identity\\oauth2/token",
            "/metadata\\identity/oauth2/token",
            "/metadata%5Cidentity%5Coauth2%5Ctoken",
            "/metadata/identity%0A/oauth2/token",
            "/metadata/identity/oauth2/tok%2565n",
            "/metadata/identity/oauth2/token%00",
            "/metadata/identity/oauth2/token;x=1",
            "/../metadata/identity/oauth2/token",
            "/metadata/identity/oauth2/token%zz",
            "/metadata/identity/oauth2/token%2",
            "metadata/identity/oauth2/token",
            "/metadata/instance/caf\u{e9}",
            "*",
            "",
        ] {
            assert_eq!(Route::parse(path), Route::Invalid, "{path}");
        }
    }

    #[test]
    fn other_paths_get_their_group_and_canonical_spelling() {
        let path = |group, path: &str| Route::Path {
            group,
            path: path.to_owned(),
        };
        for (raw, expected) in [
            (
                "/metadata/instance",
                path(PathGroup::Instance, "/metadata/instance"),
            ),
            (
                "/Metadata/Instance//compute/vmId/",
                path(PathGroup::Instance, "/metadata/instance/compute/vmId"),
            ),
            (
                "/metadata/instancefoo",
                path(PathGroup::Other, "/metadata/instancefoo"),
            ),
            (
                "/metadata/attested/document",
                path(PathGroup::Attested, "/metadata/attested/document"),
            ),
            (
                "/metadata/scheduledevents",
                path(PathGroup::ScheduledEvents, "/metadata/scheduledevents"),
            ),
            (
                "/metadata/identity/info",
                path(PathGroup::Identity, "/metadata/identity/info"),
            ),
            (
                "/latest/meta-data/instance-id",
                path(PathGroup::Other, "/latest/meta-data/instance-id"),
            ),
            ("/", path(PathGroup::Other, "/")),
            ("/metadata/identity/getplatformmetadata", Route::NotFound),
            ("/metadata/Identity/IssueCredential", Route::NotFound),
            ("/metadata/identity/oauth2", Route::NotFound),
            ("/metadata/identity/oauth2/token/more", Route::NotFound),
        ] {
            assert_eq!(Route::parse(raw), expected, "{raw}");
        }
    }

    /// What a careless server might make of a path: decode again and again, fold case, take `\` for `/`, drop what
    /// does not print, resolve dots.
    fn careless(path: &str) -> String {
        let mut text = path.to_owned();
        for _ in 0..3 {
            let mut decoded = Vec::new();
            let mut bytes = text.bytes().peekable();
            while let Some(byte) = bytes.next() {
                let digits: Vec<u8> = bytes.clone().take(2).filter_map(hex).collect();
                if byte == b'%' && digits.len() == 2 {
                    decoded.push(digits[0] << 4 | digits[1]);
                    bytes.nth(1);
                } else {
                    decoded.push(byte);
                }
            }
            text = String::from_utf8_lossy(&decoded).into_owned();
        }
        let folded: String = text
            .to_lowercase()
            .replace('\\', "/")
            .chars()
            .filter(|c| !c.is_control() && !c.is_whitespace())
            .collect();
        let mut segments: Vec<&str> = Vec::new();
        for segment in folded.split('/') {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                segment => segments.push(segment),
            }
        }
        segments.join("/")
    }

    fn spelling() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/"),
            Just("//"),
            Just("\\"),
            Just("%2f"),
            Just("%5C"),
            Just("%252F"),
            Just("."),
            Just(".."),
            Just("/./"),
            Just("/../"),
            Just("x"),
            Just("%00"),
            Just("%0A"),
            Just(";a"),
            Just("%2e"),
            Just("metadata"),
            Just("Metadata"),
            Just("m%65tadata"),
            Just("identity"),
            Just("IDENTITY"),
            Just("oauth2"),
            Just("token"),
            Just("tok%2565n"),
            Just("tok%65n"),
            Just("instance"),
        ]
        .prop_map(str::to_owned);
        prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn no_spelling_of_the_token_path_is_ever_passed_on(raw in spelling()) {
            let route = Route::parse(&raw);
            if careless(&raw).starts_with("metadata/identity/oauth2/token") {
                let passed = matches!(route, Route::Path { .. });
                prop_assert!(!passed, "{raw} would be passed on");
            }
            if let Route::Path { path, .. } = &route {
                prop_assert!(!careless(path).contains("oauth2/token") || !careless(path).starts_with("metadata/identity"));
                prop_assert_eq!(&Route::parse(path), &route, "canonical is stable");
            }
        }

        #[test]
        fn nothing_panics(raw in "\\PC{0,80}") {
            let _any = Route::parse(&raw);
        }
    }
}

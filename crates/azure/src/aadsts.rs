//! Entra's error codes (`AADSTS…`): what they mean for asking again, and their text without what only support needs.
//! Source: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.

use podid_core::TroubleKind;

/// Longest text that is handed on, in characters.
const MAX_TEXT: usize = 400;

/// The number of the first `AADSTS` code in a text.
pub(crate) fn code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// What a code means; none for one that is not known here, which the HTTP status then decides.
pub(crate) fn kind(code: u32) -> Option<TroubleKind> {
    Some(match code {
        // The audience is not there, is malformed, is disabled, or no consent was given for it.
        50_001 | 500_011 | 500_014 | 650_052 | 650_057 | 65_001 | 70_011 | 90_009 | 90_010 | 100_040
        | 1_002_012 | 28_002 | 28_003 | 501_051 | 901_002 => TroubleKind::InvalidResource,
        // The application or its principal is not there or is disabled.
        700_016 | 700_001 | 7_000_112 | 700_030 | 90_002 | 90_023 | 900_021 | 90_019 | 900_023 => {
            TroubleKind::IdentityNotFound
        }
        // Secret wrong or ended, certificate unknown or ended, assertion out of time or wrongly signed.
        7_000_215 | 7_000_222 | 7_000_218 | 700_021 | 700_022 | 700_023 | 700_024 | 700_027 | 50_012
        | 50_013 | 500_132 | 500_133 => TroubleKind::InvalidCredential,
        // Busy, or about to know what it does not know yet.
        50_196 | 90_055 => TroubleKind::Throttled,
        90_033 | 90_012 | 90_020 | 50_000 | 51_004 | 90_001 | 50_049 => TroubleKind::Unavailable,
        // Federation: no credential matches issuer, subject or audience. One that was just made takes minutes to be
        // seen everywhere, and the first answers while it is not are these. Still refusals: who waits for it is told,
        // and asks again after the short time that refusals are remembered.
        70_021 | 700_211 | 700_212 | 700_213 | 700_223 | 700_236 | 700_238 => TroubleKind::InvalidCredential,
        _ => return None,
    })
}

/// The text as a pod may read it: the sentence itself, on one line, without trace ids and time stamps.
pub(crate) fn text(description: &str) -> String {
    let mut end = description.len();
    for marker in ["Trace ID:", "Correlation ID:", "Timestamp:"] {
        end = end.min(description.find(marker).unwrap_or(end));
    }
    let kept = description.get(..end).unwrap_or_default();
    let words: Vec<&str> = kept.split_whitespace().collect();
    let line = words.join(" ");
    // "unreachable" in an error makes Python's, JavaScript's and Go's SDKs believe that there is no metadata service.
    let line = line.replace("unreachable", "out of reach");
    let line = line.trim_end_matches(['.', ' ']);
    line.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lose_what_only_support_needs() {
        let description = "AADSTS500011: The resource principal named https://nope was not found in the tenant named T. \
             This can happen if it was not installed.\r\nTrace ID: 1b2c\r\nCorrelation ID: 3d4e\r\nTimestamp: 2024-01-01 00:00:00Z";
        assert_eq!(code(description), Some(500_011));
        assert_eq!(kind(500_011), Some(TroubleKind::InvalidResource));
        assert_eq!(
            text(description),
            "AADSTS500011: The resource principal named https://nope was not found in the tenant named T. \
             This can happen if it was not installed"
        );
        assert_eq!(text("network unreachable\n Trace ID: x"), "network out of reach");
        assert_eq!(code("no code"), None);
    }
}

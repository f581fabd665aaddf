//! Ages as `kubectl` writes them: 5s, 3m12s, 2h, 7d, 1y.

use jiff::Timestamp;

/// The time since `stamp` (RFC 3339), or `<unknown>`.
pub(crate) fn short(stamp: &str, now: Timestamp) -> String {
    match stamp.parse::<Timestamp>() {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// A duration for people. Source: `HumanDuration` of `k8s.io/apimachinery/pkg/util/duration`.
fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 if seconds % 60 == 0 => format!("{minutes}m"),
        120..600 => format!("{minutes}m{}s", seconds % 60),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 == 0 => format!("{hours}h"),
        10_800..28_800 => format!("{hours}h{}m", minutes % 60),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 == 0 => format!("{days}d"),
        172_800..691_200 => format!("{days}d{}h", hours % 24),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 if (days % 365) == 0 => format!("{}y", days / 365),
        63_072_000..252_288_000 => format!("{}y{}d", days / 365, days % 365),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (192, "3m12s"),
            (600, "10m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (691_200, "8d"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }
}

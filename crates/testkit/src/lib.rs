//! What tests and benchmarks of several crates share: waiting for something to become true, running the commands of a guide,
//! telling what was measured. Only ever a dev-dependency, but for `xtask`, which is shipped to nobody.

pub mod bench;
pub mod guide;
pub mod netfilter;
pub mod shell;

use std::fmt::Debug;
use std::time::Duration;

/// How long something that is on its way may take, on a loaded machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks again and again until `look` gives a value; says what was seen last if it never does.
///
/// `look` gives `Ok(value)` when it is there and `Err(what was seen)` when it is not.
pub async fn eventually<T, E, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, E>>,
    E: Debug,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(seen) if tokio::time::Instant::now() >= deadline => {
                return Err(format!("{what}: not within {PATIENCE:?}, last seen {seen:?}"));
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gives_up_with_what_was_seen_last() {
        let seen = eventually("the pod runs", || async { Err::<(), _>("Pending") })
            .await
            .unwrap_err();
        assert!(
            seen.contains("the pod runs") && seen.contains("Pending"),
            "{seen}"
        );
    }
}

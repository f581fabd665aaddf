//! Long-running operations: asked about until they have ended. The address that is asked is the one that the first
//! answer names; `Azure-AsyncOperation` goes before `Location`.

use std::time::Duration;

use ::http::StatusCode;
use ::http::header::{HeaderMap, LOCATION};
use serde::Deserialize;
use tokio::time::Instant;

use super::error::{self, ArmError};
use super::{Answer, Arm, parsed};

/// Between two looks when ARM does not say. Source: go-autorest, which aad-pod-identity uses.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between two looks, whatever ARM says.
const MAX_PAUSE: Duration = Duration::from_mins(1);
/// When an operation is given up. Source: as above.
const DEADLINE: Duration = Duration::from_mins(15);
/// Looks that may fail in a row. Source: as above.
const MAX_FAILED: u32 = 3;

/// What `Azure-AsyncOperation` leads to.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    error: Option<error::Inner>,
}

/// Where an operation is asked about.
enum At {
    /// A status object.
    Status(String),
    /// The result, with 202 until it is there.
    Result(String),
}

impl Arm {
    /// Waits until the operation that `answer` began, if it began one, has ended.
    pub(crate) async fn follow(&self, answer: Answer) -> Result<(), ArmError> {
        let Some(at) = at(&answer.headers, answer.status) else {
            return Ok(());
        };
        let deadline = Instant::now() + DEADLINE;
        // Only when asked to is the first look not immediate.
        let mut pause = self.asked_to_wait(&answer.headers).unwrap_or_default();
        let mut failed = 0;
        loop {
            let next = Instant::now() + pause.min(MAX_PAUSE);
            if next > deadline {
                return Err(ArmError::Unfinished(DEADLINE));
            }
            tokio::time::sleep_until(next).await;
            let (At::Status(url) | At::Result(url)) = &at;
            let answer = match self.poll(url).await {
                Ok(answer) => answer,
                Err(error) => {
                    failed += 1;
                    let after = match error.retry() {
                        podid_core::Retry::After(after) => after,
                        podid_core::Retry::Backoff => PAUSE * failed,
                        podid_core::Retry::Never => return Err(error),
                    };
                    if failed > MAX_FAILED {
                        return Err(error);
                    }
                    pause = after;
                    continue;
                }
            };
            failed = 0;
            pause = self.asked_to_wait(&answer.headers).unwrap_or(PAUSE);
            match &at {
                At::Result(_) if answer.status == StatusCode::ACCEPTED => {}
                At::Result(_) => return Ok(()),
                At::Status(_) => {
                    let status: Status = parsed(&answer.body)?;
                    if status.status.eq_ignore_ascii_case("Succeeded") {
                        return Ok(());
                    }
                    // Every other word is a way of going on, except these two. Source: ARM's resource provider contract.
                    if ["Failed", "Canceled"]
                        .iter()
                        .any(|end| status.status.eq_ignore_ascii_case(end))
                    {
                        let inner = status.error.unwrap_or_default();
                        return Err(error::refused(StatusCode::OK.as_u16(), None, inner));
                    }
                }
            }
        }
    }
}

fn at(headers: &HeaderMap, status: StatusCode) -> Option<At> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(ToOwned::to_owned);
    if let Some(url) = text("azure-asyncoperation") {
        return Some(At::Status(url));
    }
    // 201 has a `Location` too, which is then the resource itself.
    (status == StatusCode::ACCEPTED)
        .then(|| text(LOCATION.as_str()))
        .flatten()
        .map(At::Result)
}

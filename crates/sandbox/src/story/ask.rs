//! `__ask`: what the story's pods run. Asks the metadata service and prints one JSON line an answer: of a token only
//! what may be said of it, after its signature was checked, so that no token gets into a pod's log.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use podid_rt::clock::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::failure::chain;

use super::verify::{Claims, Keys};

/// The largest body that is read, bytes.
const BODY_LIMIT: usize = 1 << 20;

/// Flags of `__ask`.
#[derive(Args, Clone, Debug)]
pub struct AskArgs {
    /// What to ask for, one request each, in this order
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,

    /// Keys that tokens must be signed with, as the issuer publishes them (JWKS)
    #[arg(long, value_name = "JSON")]
    pub keys: Keys,

    /// Ask again and again with this pause, until told to stop; once when not given
    #[arg(long, value_name = "MILLISECONDS")]
    pub every_ms: Option<u64>,

    /// How long an answer may take
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 25_000)]
    pub timeout_ms: u64,
}

/// What one request gave; a line of the pod's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Which of the URLs was asked, from 0.
    pub url: usize,
    /// When it was asked, milliseconds since 1970.
    pub asked_at_ms: u64,
    /// How long the answer took, milliseconds.
    pub took_ms: u64,
    /// What came.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub(crate) enum Outcome {
    /// A token whose signature is right.
    Token {
        /// What it says.
        claims: Box<Claims>,
    },
    /// Something that should have been a token and is not.
    BadToken {
        /// What is wrong with it.
        why: String,
    },
    /// Another answer.
    Answered {
        /// HTTP status.
        status: u16,
        /// The body: JSON, or its text.
        body: Value,
    },
    /// No answer.
    NoAnswer {
        /// Why.
        why: String,
    },
}

impl AskArgs {
    /// Asks, once or until told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            urls,
            keys,
            every_ms,
            timeout_ms,
        } = self;
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A connection of its own for each question: an old one must not answer for the present.
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_millis(timeout_ms))
            .tls_certs_only([])
            .build()
            .context("cannot make an HTTP client")?;
        let clock = Clock::system();
        let ask_all = async {
            loop {
                for (number, url) in urls.iter().enumerate() {
                    let (asked_at, start) = (clock.since_epoch(), Instant::now());
                    let outcome = ask(&http, url, &keys).await;
                    let answer = Answer {
                        url: number,
                        asked_at_ms: millis(asked_at),
                        took_ms: millis(start.elapsed()),
                        outcome,
                    };
                    print(&answer)?;
                }
                match every_ms {
                    Some(pause) => tokio::time::sleep(Duration::from_millis(pause)).await,
                    None => return anyhow::Ok(()),
                }
            }
        };
        tokio::select! {
            asked = ask_all => asked,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    }
}

async fn ask(http: &reqwest::Client, url: &str, keys: &Keys) -> Outcome {
    let mut response = match http.get(url).header("Metadata", "true").send().await {
        Ok(response) => response,
        Err(error) => return Outcome::NoAnswer { why: chain(&error) },
    };
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) <= BODY_LIMIT => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => {
                return Outcome::NoAnswer {
                    why: "the answer is too large".to_owned(),
                };
            }
            Ok(None) => break,
            Err(error) => return Outcome::NoAnswer { why: chain(&error) },
        }
    }
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_not_json| Value::String(String::from_utf8_lossy(&body).into_owned()));
    let token = body.get("access_token").and_then(Value::as_str);
    match token.map(|token| keys.verify(token)) {
        None => Outcome::Answered { status, body },
        Some(Ok(claims)) => Outcome::Token {
            claims: Box::new(claims),
        },
        Some(Err(error)) => Outcome::BadToken {
            why: error.to_string(),
        },
    }
}

fn print(answer: &Answer) -> anyhow::Result<()> {
    let line = serde_json::to_string(answer).context("an answer cannot be written as JSON")?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("nobody reads the answers")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token { claims } => write!(f, "a token of {}", claims.appid),
            Self::BadToken { why } => write!(f, "a token that does not hold: {why}"),
            Self::Answered { status, body } => {
                let said = body
                    .get("error_description")
                    .or_else(|| body.get("error"))
                    .unwrap_or(body);
                let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
                write!(f, "{status}: {}", said.chars().take(200).collect::<String>())
            }
            Self::NoAnswer { why } => write!(f, "no answer: {why}"),
        }
    }
}

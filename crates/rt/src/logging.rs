//! Logs to stderr: text on a terminal, JSON elsewhere, or as `--log-format` says.

use std::io::IsTerminal;
use std::sync::OnceLock;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::reload::Handle;

/// What is logged when nobody says anything.
pub const DEFAULT_LOG: &str = "info";

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The logging flags that every process has.
#[derive(Args, Clone, Debug, Default)]
pub struct LogArgs {
    /// How log lines look; text on a terminal and json elsewhere when not given
    #[arg(long, env = "PODID_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// What is logged, as `level` or `target=level,…`
    #[arg(long, env = "PODID_LOG", default_value = DEFAULT_LOG, value_name = "FILTER")]
    pub log: String,
}

/// The filter of `--log` cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--log `{filter}` is not a log filter; write for example `info` or `podid_nmi=debug,info`")]
pub struct LogFilterError {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Why the filter stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum SetFilterError {
    /// The new one cannot be read.
    #[error(transparent)]
    Filter(#[from] LogFilterError),
    /// This process logs by other means than [`init`].
    #[error("the log of this process cannot be changed: somebody else has set it up")]
    NotHere,
}

/// The running filter: how to read it and how to change it.
struct Running {
    read: Box<dyn Fn() -> Option<String> + Send + Sync>,
    set: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// What is logged now; none where [`init`] did not set the log up.
pub fn filter() -> Option<String> {
    RUNNING.get().and_then(|running| (running.read)())
}

/// Logs by another filter from now on.
pub fn set_filter(text: &str) -> Result<(), SetFilterError> {
    let filter = parse(text)?;
    let running = RUNNING.get().ok_or(SetFilterError::NotHere)?;
    if (running.set)(filter) {
        Ok(())
    } else {
        Err(SetFilterError::NotHere)
    }
}

fn parse(text: &str) -> Result<EnvFilter, LogFilterError> {
    EnvFilter::builder().parse(text).map_err(|source| LogFilterError {
        filter: text.to_owned(),
        source,
    })
}

/// Starts logging for the process. A second call changes nothing, so tests may call it freely.
pub fn init(args: &LogArgs) -> Result<(), LogFilterError> {
    let text = if args.log.is_empty() {
        DEFAULT_LOG
    } else {
        &args.log
    };
    let filter = parse(text)?;
    let format = args.log_format.unwrap_or_else(|| {
        if std::io::stderr().is_terminal() {
            LogFormat::Text
        } else {
            LogFormat::Json
        }
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    // Err means that a subscriber is already set, by an earlier call in the same process.
    let _already_set = match format {
        LogFormat::Text => {
            let builder = builder
                .with_ansi(std::io::stderr().is_terminal())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map(|()| remember(handle))
        }
        LogFormat::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.try_init().map(|()| remember(handle))
        }
    };
    Ok(())
}

fn remember<S: 'static>(handle: Handle<EnvFilter, S>) {
    let reader = handle.clone();
    // The one that was set up first stays, as in tracing itself.
    let _first = RUNNING.set(Running {
        read: Box::new(move || reader.with_current(ToString::to_string).ok()),
        set: Box::new(move |filter| handle.reload(filter).is_ok()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let args = LogArgs {
            log_format: None,
            log: "podid_nmi=loud".to_owned(),
        };
        let text = init(&args).unwrap_err().to_string();
        assert!(text.contains("podid_nmi=loud"), "{text}");
    }
}

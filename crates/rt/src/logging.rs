//! Logs to stderr: text on a terminal, JSON elsewhere, or as `--log-format` says.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

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

/// Starts logging for the process. A second call changes nothing, so tests may call it freely.
pub fn init(args: &LogArgs) -> Result<(), LogFilterError> {
    let text = if args.log.is_empty() {
        DEFAULT_LOG
    } else {
        &args.log
    };
    let filter = EnvFilter::builder()
        .parse(text)
        .map_err(|source| LogFilterError {
            filter: text.to_owned(),
            source,
        })?;
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
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    Ok(())
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

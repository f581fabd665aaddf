//! The one place that writes to the terminal: the tutorial's lines on stdout, structured detail on stderr.

use std::io::Write;

use serde_json::Value;

/// Where lines go.
pub struct Printer {
    lines: Box<dyn Write + Send>,
    details: Box<dyn Write + Send>,
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").finish_non_exhaustive()
    }
}

impl Printer {
    /// Stdout and stderr.
    pub fn to_terminal() -> Self {
        Self::new(std::io::stdout(), std::io::stderr())
    }

    /// `lines` for the tutorial's lines, `details` for JSON, one object a line.
    pub fn new(lines: impl Write + Send + 'static, details: impl Write + Send + 'static) -> Self {
        Self {
            lines: Box::new(lines),
            details: Box::new(details),
        }
    }

    /// A line of the tutorial, as it is.
    pub fn line(&mut self, text: &str) {
        // Nobody reads any more: the workload goes on all the same.
        let _closed = writeln!(self.lines, "{text}").and_then(|()| self.lines.flush());
    }

    /// Structured detail.
    pub fn detail(&mut self, value: &Value) {
        let _closed = writeln!(self.details, "{value}").and_then(|()| self.details.flush());
    }
}

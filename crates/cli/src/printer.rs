//! The one place that writes to the terminal: data on stdout, all else on stderr.

use std::io::Write;

use crate::error::CliError;

/// Where data and words go.
pub struct Printer {
    data: Box<dyn Write + Send>,
    words: Box<dyn Write + Send>,
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

    /// For what nobody wants to read.
    pub(crate) fn nowhere() -> Self {
        Self::new(std::io::sink(), std::io::sink())
    }

    /// `data` for what was asked for, `words` for everything else.
    pub fn new(data: impl Write + Send + 'static, words: impl Write + Send + 'static) -> Self {
        Self {
            data: Box::new(data),
            words: Box::new(words),
        }
    }

    /// What was asked for. A reader that has gone away is no error.
    pub fn data(&mut self, text: &str) {
        let _closed = writeln!(self.data, "{}", text.trim_end_matches('\n')).and_then(|()| self.data.flush());
    }

    /// What was done.
    pub fn say(&mut self, text: &str) {
        let _closed = writeln!(self.words, "{text}");
    }

    /// What could be done next.
    pub fn hint(&mut self, text: &str) {
        self.say(&format!("hint: {text}"));
    }
}

/// Says on stderr why a command failed, all causes on one line, then what could help.
pub fn report(error: &anyhow::Error) {
    let mut printer = Printer::to_terminal();
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors have their causes in their own text.
        if !text.contains(&cause) {
            text = if text.is_empty() {
                cause
            } else {
                format!("{text}: {cause}")
            };
        }
    }
    printer.say(&format!("error: {text}"));
    if let Some(hint) = error.downcast_ref::<CliError>().and_then(CliError::hint) {
        printer.hint(&hint);
    }
}

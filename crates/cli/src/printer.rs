//! The one place that writes to the terminal: data on stdout, all else on stderr.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::error::CliError;

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(80);

/// Where data and words go.
pub struct Printer {
    data: Box<dyn Write + Send>,
    words: Box<dyn Write + Send>,
    /// Whether a person looks at the words.
    watched: bool,
    progress: Option<Progress>,
}

/// Something that goes on.
struct Progress {
    text: String,
    /// Where a person looks.
    spinner: Option<ProgressBar>,
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").finish_non_exhaustive()
    }
}

impl Printer {
    /// Stdout and stderr.
    pub fn to_terminal() -> Self {
        Self {
            watched: std::io::stderr().is_terminal(),
            ..Self::new(std::io::stdout(), std::io::stderr())
        }
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
            watched: false,
            progress: None,
        }
    }

    /// What was asked for. A reader that has gone away is no error.
    pub fn data(&mut self, text: &str) {
        let _closed = writeln!(self.data, "{}", text.trim_end_matches('\n')).and_then(|()| self.data.flush());
    }

    /// The same for bytes that are not ours to change, as a completion script or a page.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _closed = self.data.write_all(bytes).and_then(|()| self.data.flush());
    }

    /// What was done.
    pub fn say(&mut self, text: &str) {
        self.finish();
        let _closed = writeln!(self.words, "{text}");
    }

    /// What could be done next.
    pub fn hint(&mut self, text: &str) {
        self.say(&format!("hint: {text}"));
    }

    /// What is going on: a spinner where a person looks, else a line each time that it is something new.
    pub fn progress(&mut self, text: &str) {
        if self.progress.as_ref().is_some_and(|now| now.text == text) {
            return;
        }
        let before = self.progress.take().and_then(|before| before.spinner);
        let spinner = if self.watched {
            let spinner = before.unwrap_or_else(|| {
                let spinner = ProgressBar::new_spinner();
                spinner.enable_steady_tick(TURN);
                spinner
            });
            spinner.set_message(text.to_owned());
            Some(spinner)
        } else {
            let _closed = writeln!(self.words, "{text}");
            None
        };
        self.progress = Some(Progress {
            text: text.to_owned(),
            spinner,
        });
    }

    /// It does not go on any more.
    pub fn finish(&mut self) {
        if let Some(spinner) = self.progress.take().and_then(|progress| progress.spinner) {
            spinner.finish_and_clear();
        }
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

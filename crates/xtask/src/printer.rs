//! The only place where xtask writes to the terminal.

#![expect(clippy::print_stdout, reason = "the printer")]

/// Writes one line to stdout.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

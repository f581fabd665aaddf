//! The only place where the bench writes to the terminal.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the printer")]

/// Writes a result to stdout.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Says what is going on, on stderr.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

//! The only place where xtask writes to the terminal.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the printer")]

/// Writes one line to stdout.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Says what is going on, on stderr.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Writes text to stdout as it is.
pub(crate) fn text(text: &str) {
    print!("{text}");
}

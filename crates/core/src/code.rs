//! A row of the tables of codes that other crates keep for their errors: what the page of codes is made of.

/// A stable code, what it means and what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code.
    pub code: &'static str,
    /// What happened, in one sentence without end stop.
    pub text: &'static str,
    /// What helps.
    pub fix: &'static str,
}

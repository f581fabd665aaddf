//! Recording a decision's steps. `()` records nothing, so that the agent's own run pays nothing for it.

use std::fmt;

/// Is told each step of a decision.
pub trait Record {
    /// `what` was looked at, and what was found.
    fn step(&mut self, what: &'static str, found: fmt::Arguments<'_>);
}

impl Record for () {
    fn step(&mut self, _what: &'static str, _found: fmt::Arguments<'_>) {}
}

/// The steps of one decision, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps(pub Vec<(&'static str, String)>);

impl Record for Steps {
    fn step(&mut self, what: &'static str, found: fmt::Arguments<'_>) {
        self.0.push((what, found.to_string()));
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(what, found)| writeln!(f, "{what}: {found}"))
    }
}

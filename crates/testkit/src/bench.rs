//! What was measured, beside its budget: as a table for people and as JSON for programs.

pub mod cores;

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Everything, with the machine it was measured on.
#[derive(Debug, Serialize)]
pub struct Report {
    /// As [`machine`] tells of it.
    pub machine: Value,
    /// The table's lines.
    pub rows: Vec<Row>,
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    what: String,
    measured: String,
    /// Empty where there is none.
    budget: String,
    verdict: Verdict,
    /// The numbers; names end in their unit.
    values: Map<String, Value>,
}

/// Whether the budget was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was.
    Pass,
    /// It was not.
    Fail,
    /// There is no budget.
    Noted,
    /// It could not be measured here.
    NotRun,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Noted => "",
            Self::NotRun => "not run",
        }
    }
}

impl Row {
    /// Something without a budget.
    pub fn noted(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            budget: String::new(),
            verdict: Verdict::Noted,
            values: Map::new(),
        }
    }

    /// Something that cannot be measured here.
    pub fn not_run(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::NotRun,
            ..Self::noted(what, why)
        }
    }

    /// With a budget, which is kept or not.
    #[must_use]
    pub fn against(mut self, budget: impl Into<String>, kept: bool) -> Self {
        self.budget = budget.into();
        self.verdict = if kept { Verdict::Pass } else { Verdict::Fail };
        self
    }

    /// Under another name.
    #[must_use]
    pub fn renamed(mut self, what: &str) -> Self {
        what.clone_into(&mut self.what);
        self
    }

    /// With a number.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }
}

impl Report {
    /// The table, as Markdown.
    pub fn table(&self) -> String {
        let mut text = "| what | measured | budget | |\n| --- | --- | --- | --- |\n".to_owned();
        for row in &self.rows {
            // Writing to a String cannot fail.
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.what,
                row.measured,
                row.budget,
                row.verdict.word()
            );
        }
        text
    }
}

/// The machine: cores, kernel and processor.
pub fn machine(cores: usize) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, model)| model.trim().to_owned());
    json!({ "cores": cores, "kernel": read("/proc/sys/kernel/osrelease").trim(), "processor": processor })
}

/// A duration for people.
pub fn time(duration: Duration) -> String {
    let micros = micros(duration);
    if micros < 1_000.0 {
        format!("{micros:.0} µs")
    } else if micros < 1_000_000.0 {
        format!("{:.2} ms", micros / 1_000.0)
    } else {
        format!("{:.2} s", micros / 1_000_000.0)
    }
}

/// A duration in microseconds.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

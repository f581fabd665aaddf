//! What was measured, beside its budget: as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Everything, with the machine it was measured on.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Value,
    pub(crate) rows: Vec<Row>,
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    what: String,
    measured: String,
    /// Empty where there is none.
    budget: String,
    verdict: &'static str,
    /// The numbers; names end in their unit.
    values: Map<String, Value>,
}

impl Row {
    /// Something without a budget.
    pub(crate) fn noted(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            budget: String::new(),
            verdict: "noted",
            values: Map::new(),
        }
    }

    /// With a budget, which is kept or not.
    pub(crate) fn against(mut self, budget: &str, kept: bool) -> Self {
        budget.clone_into(&mut self.budget);
        self.verdict = if kept { "pass" } else { "fail" };
        self
    }

    /// With a number.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// Under another name.
    pub(crate) fn renamed(mut self, what: &str) -> Self {
        what.clone_into(&mut self.what);
        self
    }
}

impl Report {
    /// The table, as Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = "| what | measured | budget | |\n| --- | --- | --- | --- |\n".to_owned();
        for row in &self.rows {
            // Writing to a String cannot fail.
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.what, row.measured, row.budget, row.verdict
            );
        }
        text
    }
}

/// The machine: cores, kernel and processor.
pub(crate) fn machine(cores: usize) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, model)| model.trim().to_owned());
    json!({ "cores": cores, "kernel": read("/proc/sys/kernel/osrelease").trim(), "processor": processor })
}

/// A duration for people.
pub(crate) fn time(duration: Duration) -> String {
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
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Bytes in megabytes.
#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 bytes")]
pub(crate) fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

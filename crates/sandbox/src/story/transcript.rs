//! What a person sees of the story: each step with its command, a spinner while it runs on a terminal, its time and
//! what came back; a table at the end. With `--json` the same as data.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressStyle};
use podid_cli::printer::Printer;
use serde::Serialize;
use tokio::time::Instant;

use crate::failure::Failure;

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(80);
/// Width of a step's title, so that times stand below each other.
const TITLE: usize = 62;

/// What a step gives: its value, and what is said of it.
pub(crate) struct Seen<T> {
    pub(crate) value: T,
    pub(crate) lines: Vec<String>,
}

impl<T> Seen<T> {
    /// With one line.
    pub(crate) fn new(value: T, line: impl Into<String>) -> Self {
        Self {
            value,
            lines: vec![line.into()],
        }
    }

    /// One more line.
    pub(crate) fn and(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }
}

/// A step that a later one cannot do without has failed.
#[derive(Debug)]
pub(crate) struct Stopped;

/// One step, as data.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    number: usize,
    title: String,
    commands: Vec<String>,
    took_ms: u64,
    ok: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    result: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// All steps, as they come.
pub(crate) struct Transcript {
    json: bool,
    colours: bool,
    printer: Printer,
    begun: Instant,
    steps: Vec<Step>,
}

impl Transcript {
    /// None yet; `json` keeps them for the end.
    pub(crate) fn new(json: bool, printer: Printer) -> Self {
        Self {
            json,
            colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            printer,
            begun: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// Does a step and tells of it.
    pub(crate) async fn step<T>(
        &mut self,
        title: &str,
        commands: &[&str],
        work: impl Future<Output = Result<Seen<T>, Failure>>,
    ) -> Result<T, Stopped> {
        let number = self.steps.len() + 1;
        let spinner = self.spinner(number, title);
        let start = Instant::now();
        let outcome = work.await;
        let took = start.elapsed();
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let (value, result, failure) = match outcome {
            Ok(Seen { value, lines }) => (Ok(value), lines, None),
            Err(failure) => (Err(Stopped), Vec::new(), Some(failure.to_string())),
        };
        let step = Step {
            number,
            title: title.to_owned(),
            commands: commands.iter().map(|command| (*command).to_owned()).collect(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ok: failure.is_none(),
            result,
            failure,
        };
        self.show(&step);
        self.steps.push(step);
        value
    }

    /// The end of a story that has not begun: all has been said, but for data.
    pub(crate) fn abandon(self) {
        if self.json {
            self.finish(false);
        }
    }

    /// The end: a table, or all as data. Whether every step held.
    pub(crate) fn finish(mut self, complete: bool) -> bool {
        let failed = self.steps.iter().filter(|step| !step.ok).count();
        let ok = complete && failed == 0;
        let took = self.begun.elapsed();
        if self.json {
            let data = serde_json::json!({
                "ok": ok,
                "complete": complete,
                "tookMs": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "steps": self.steps,
            });
            self.printer
                .data(&serde_json::to_string_pretty(&data).unwrap_or_default());
            return ok;
        }
        let mut table = Table::new();
        table
            .load_style(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["#", "step", "time", ""]);
        for step in &self.steps {
            let mark = if step.ok { "ok" } else { "FAILED" };
            table.add_row([
                step.number.to_string(),
                step.title.clone(),
                seconds(step.took_ms),
                mark.to_owned(),
            ]);
        }
        self.printer.data(&table.to_string());
        let total = format!("{} steps in {:.1} s", self.steps.len(), took.as_secs_f64());
        let verdict = if ok {
            self.paint("32", &format!("{total}: every check held"))
        } else if complete {
            self.paint("31", &format!("{total}: {failed} did not hold"))
        } else {
            self.paint("31", &format!("{total}: the story could not go on"))
        };
        self.printer.data(&verdict);
        ok
    }

    fn spinner(&self, number: usize, title: &str) -> Option<ProgressBar> {
        if self.json || !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}  {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(format!("{number:>2}  {title}"));
        bar.enable_steady_tick(TURN);
        Some(bar)
    }

    fn show(&mut self, step: &Step) {
        if self.json {
            return;
        }
        let mark = if step.ok {
            self.paint("32", "✓")
        } else {
            self.paint("31", "✗")
        };
        let title = format!("{:<TITLE$}", step.title);
        let mut text = format!(
            "{mark} {:>2}  {}  {:>7}\n",
            step.number,
            self.paint("1", &title),
            seconds(step.took_ms)
        );
        // Writing to a string cannot fail.
        for command in &step.commands {
            let _written = writeln!(text, "      {}", self.paint("36", &format!("$ {command}")));
        }
        for line in &step.result {
            let _written = writeln!(text, "      {line}");
        }
        if let Some(failure) = &step.failure {
            let _written = writeln!(text, "      {}", self.paint("31", failure));
        }
        self.printer.data(&format!("{}\n ", text.trim_end()));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

fn seconds(millis: u64) -> String {
    let tenths = millis.div_ceil(10);
    format!("{}.{:02} s", tenths / 100, tenths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_seconds() {
        assert_eq!(seconds(0), "0.00 s");
        assert_eq!(seconds(1), "0.01 s");
        assert_eq!(seconds(12_340), "12.34 s");
    }

    #[tokio::test]
    async fn one_failed_step_fails_the_story() {
        let mut transcript = Transcript::new(true, Printer::new(std::io::sink(), std::io::sink()));
        let first = transcript
            .step("a", &[], async { Ok(Seen::new(1, "fine")) })
            .await;
        assert_eq!(first.unwrap(), 1);
        let second: Result<(), Stopped> = transcript
            .step("b", &[], async { Err(Failure::said("no")) })
            .await;
        second.unwrap_err();
        assert!(!transcript.finish(true));
    }
}

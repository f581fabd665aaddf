//! How results look: a table for people, JSON or YAML for programs, names for loops.

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::error::CliError;
use crate::printer::Printer;

/// The format of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns, for people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// One name a line.
    Name,
}

/// A result in all its formats.
pub(crate) struct Listing<'a, T> {
    /// What is listed, for the words when there is nothing.
    pub(crate) what: &'a str,
    /// Column titles.
    pub(crate) titles: &'a [&'a str],
    /// One row an item.
    pub(crate) rows: Vec<Vec<String>>,
    /// One name an item.
    pub(crate) names: Vec<String>,
    /// The same as data.
    pub(crate) data: &'a T,
}

impl<T: Serialize> Listing<'_, T> {
    /// Prints in `format`.
    pub(crate) fn print(self, format: Format, printer: &mut Printer) -> Result<(), CliError> {
        match format {
            Format::Table if self.rows.is_empty() => printer.say(&format!("no {} found", self.what)),
            Format::Table => printer.data(&table(self.titles, self.rows)),
            Format::Name if self.names.is_empty() => {}
            Format::Name => printer.data(&self.names.join("\n")),
            Format::Json => {
                let text =
                    serde_json::to_string_pretty(self.data).map_err(|source| CliError::Unwritable {
                        format: "json",
                        source: source.into(),
                    })?;
                printer.data(&text);
            }
            Format::Yaml => {
                let text = serde_saphyr::to_string(self.data).map_err(|source| CliError::Unwritable {
                    format: "yaml",
                    source: source.into(),
                })?;
                printer.data(&text);
            }
        }
        Ok(())
    }
}

/// Columns without lines, as kubectl has them.
fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(titles.iter().copied());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| printable(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Anybody may write into an object: no control character of theirs reaches the terminal.
fn printable(cell: &str) -> String {
    if cell.is_empty() {
        return "<none>".to_owned();
    }
    cell.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_of_an_object_reaches_the_terminal() {
        let text = table(
            &["NAME", "LABELS"],
            vec![vec!["a\u{1b}[2J".to_owned(), String::new()]],
        );
        assert_eq!(text, "NAME    LABELS\na\u{fffd}[2J   <none>");
    }
}

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
pub(crate) struct Listing<T> {
    /// What is listed, for the words when there is nothing.
    pub(crate) what: &'static str,
    /// Column titles.
    pub(crate) titles: Vec<&'static str>,
    /// One row an item.
    pub(crate) rows: Vec<Vec<String>>,
    /// One name an item.
    pub(crate) names: Vec<String>,
    /// The same as data.
    pub(crate) data: T,
}

impl<T: Serialize> Listing<T> {
    /// Prints in `format`.
    pub(crate) fn print(self, format: Format, printer: &mut Printer) -> Result<(), CliError> {
        match format {
            Format::Table if self.rows.is_empty() => printer.say(&format!("no {} found", self.what)),
            Format::Table => printer.data(&table(&self.titles, self.rows)),
            Format::Name if self.names.is_empty() => {}
            Format::Name => printer.data(&self.names.join("\n")),
            Format::Json => printer.data(&json(&self.data)?),
            Format::Yaml => printer.data(&yaml(&self.data)?),
        }
        Ok(())
    }
}

/// Prints one object as data; as a table it is its name.
pub(crate) fn object(
    data: &impl Serialize,
    name: &str,
    format: Format,
    printer: &mut Printer,
) -> Result<(), CliError> {
    printer.data(&match format {
        Format::Json => json(data)?,
        Format::Yaml => yaml(data)?,
        Format::Name | Format::Table => name.to_owned(),
    });
    Ok(())
}

fn json(data: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(data).map_err(|source| CliError::Unwritable {
        format: "json",
        source: source.into(),
    })
}

fn yaml(data: &impl Serialize) -> Result<String, CliError> {
    serde_saphyr::to_string(data).map_err(|source| CliError::Unwritable {
        format: "yaml",
        source: source.into(),
    })
}

/// Labels in one cell.
pub(crate) fn labels<'l>(labels: impl IntoIterator<Item = (&'l String, &'l String)>) -> String {
    let pairs = labels.into_iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
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
pub(crate) fn printable(cell: &str) -> String {
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

//! Tables for `kubectl get`: the columns of a real API server for our kinds, and printer columns of custom resources.

mod age;
mod cells;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::json::{self, text};
use crate::jsonpath::{Path, plain};
use crate::resource::{Column, Resource};

pub(crate) use age::short;

/// Which part of the object comes with its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    #[default]
    Metadata,
    Object,
    Nothing,
}

impl Include {
    /// Reads `includeObject`.
    pub(crate) fn read(text: &str) -> Self {
        match text {
            "Object" => Self::Object,
            "None" => Self::Nothing,
            _ => Self::Metadata,
        }
    }
}

/// A table of these objects.
pub(crate) fn table(
    resource: &Resource,
    list_metadata: &Value,
    rows: Vec<Value>,
    with_columns: bool,
) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": if with_columns { Value::Array(columns(resource)) } else { Value::Null },
        "rows": rows,
    })
}

/// One row.
pub(crate) fn row(resource: &Resource, object: &Value, now: Timestamp, include: Include) -> Value {
    let (cells, conditions) = match &resource.custom {
        Some(custom) => (custom_cells(&custom.columns, object, now), Value::Null),
        None => cells::builtin(resource, object, now),
    };
    let mut row = json!({ "cells": cells });
    if !conditions.is_null() {
        json::set(&mut row, &["conditions"], conditions);
    }
    match include {
        Include::Metadata => json::set(&mut row, &["object"], partial(object)),
        Include::Object => json::set(&mut row, &["object"], object.clone()),
        Include::Nothing => {}
    }
    row
}

/// An object's metadata alone.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata"),
    })
}

fn column(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({ "name": name, "type": kind, "format": format, "description": description, "priority": priority })
}

fn columns(resource: &Resource) -> Vec<Value> {
    let mut columns = vec![column(
        "Name",
        "string",
        "name",
        "Name must be unique within a namespace.",
        0,
    )];
    match &resource.custom {
        None => columns.extend(
            cells::columns(resource)
                .iter()
                .map(|(name, kind, priority)| column(name, kind, "", "", *priority)),
        ),
        Some(custom) if custom.columns.is_empty() => columns.push(column("Age", "date", "", AGE, 0)),
        Some(custom) => columns.extend(
            custom
                .columns
                .iter()
                .map(|one| column(&one.name, &one.kind, &one.format, &one.description, one.priority)),
        ),
    }
    // Events show their name last, and only in wide tables.
    if cells::name_comes_last(resource) {
        columns.remove(0);
    }
    columns
}

const AGE: &str = "CreationTimestamp is the server time when this object was created.";

fn custom_cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![json!(json::name(object))];
    if columns.is_empty() {
        cells.push(json!(short(
            text(object, &["metadata", "creationTimestamp"]),
            now
        )));
    }
    for column in columns {
        let Ok(path) = Path::parse(&column.path) else {
            cells.push(Value::Null);
            continue;
        };
        let found = path.find(object);
        cells.push(match (column.kind.as_str(), found.as_slice()) {
            (_, []) => Value::Null,
            ("date", [value, ..]) => json!(short(value.as_str().unwrap_or_default(), now)),
            ("integer" | "number" | "boolean", [value]) => (*value).clone(),
            (_, values) => json!(
                values
                    .iter()
                    .map(|value| plain(value))
                    .collect::<Vec<_>>()
                    .join(" ")
            ),
        });
    }
    cells
}

//! Structural schemas of custom resources: read from a CRD, then used to prune, default and validate objects. Rules in
//! CEL are in `cel`.

mod check;
mod conform;
mod read;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

pub(crate) use check::shown;
pub(crate) use read::SchemaError;

/// A custom resource's schema.
#[derive(Debug, Default)]
pub(crate) struct Structural {
    pub(crate) root: Node,
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// How the items of a list are told apart when two writers meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    /// The list is one value.
    #[default]
    Atomic,
    /// Items are scalars, each there once.
    Set,
    /// Items are objects with these keys.
    Map(Vec<String>),
}

/// What a map may hold besides its properties.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// Nothing.
    #[default]
    None,
    /// Anything.
    Any,
    /// Values of this schema.
    Schema(Box<Node>),
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// None inside `allOf` and the like, and for `x-kubernetes-int-or-string`.
    pub(crate) kind: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    pub(crate) properties: BTreeMap<String, Self>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Self>>,
    pub(crate) default: Option<Value>,
    pub(crate) list_type: ListType,
    pub(crate) map_is_atomic: bool,
    pub(crate) limits: Limits,
}

/// What a value must fulfil beside its type.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) one_of_values: Vec<Value>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<String>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) required: Vec<String>,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
}

impl Node {
    /// Whether null is no value here.
    pub(crate) fn refuses_null(&self) -> bool {
        !self.nullable && (self.kind.is_some() || self.int_or_string)
    }

    /// The schema of a field of an object.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(node) => Some(node),
            Additional::None | Additional::Any => None,
        })
    }
}

#[cfg(test)]
mod tests;

//! The CRDs, made from the types and then shaped for what schemars cannot say. It writes no files.

use schemars::{Schema, SchemaGenerator, json_schema};

/// An object of any shape.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

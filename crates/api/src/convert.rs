//! From custom resources to core's nouns. Errors name the object and the field.

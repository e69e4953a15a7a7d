//! Schemas that are not simply the shape of a Rust type.

use serde_json::Value;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Object, RefOr, Schema};

/// One of a few words.
pub(crate) fn word(words: &[&str]) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.iter().copied()))
        .build()
}

/// One of a few words, or null.
pub(crate) fn word_or_null(words: &[&str]) -> Object {
    let words = words.iter().copied().map(Value::from);
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
        .enum_values(Some(words.chain([Value::Null])))
        .build()
}

/// Null, or what `schema` describes.
pub(crate) fn nullable(schema: impl Into<RefOr<Schema>>) -> AnyOfBuilder {
    AnyOfBuilder::new()
        .item(schema)
        .item(Object::with_type(Type::Null))
}

/// A value that may be left to the service: by `"auto"`, by null, or by leaving it out.
pub(crate) fn or_auto(schema: impl Into<RefOr<Schema>>) -> AnyOfBuilder {
    AnyOfBuilder::new()
        .item(schema)
        .item(word_or_null(&["auto"]))
}

/// Functions for `#[schema(schema_with = …)]`, each the schema of a field that has one of a few words.
macro_rules! words {
    ($($name:ident: $($word:literal)|+;)+) => {$(
        pub(crate) fn $name() -> utoipa::openapi::Object {
            crate::openapi::build::word(&[$($word),+])
        }
    )+};
}

words! {
    list: "list";
    file: "file";
    created_at: "created_at";
    file_status: "uploaded" | "processed" | "error";
    job: "fine_tuning.job";
    job_status: "validating_files" | "queued" | "running" | "paused" | "succeeded" | "failed" | "cancelled";
    event: "fine_tuning.job.event";
    event_level: "info" | "warn" | "error";
    event_type: "message" | "metrics";
    checkpoint: "fine_tuning.job.checkpoint";
    model: "model";
}

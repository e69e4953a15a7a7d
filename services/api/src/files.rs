//! The files endpoints. An upload streams into the bucket; its row appears when the object is whole.

pub mod content;
pub mod create;
pub mod delete;
mod form;
pub(crate) mod incoming;
pub(crate) mod intake;
pub mod list;
pub(crate) mod purpose;
mod range;
pub mod retrieve;
pub(crate) mod usable;

pub use purpose::{BATCH, BATCH_OUTPUT, FINE_TUNE};

use domain::FileId;
use serde::Serialize;
use store::files::File;
use utoipa::ToSchema;

use crate::openapi::build;

/// A file as a client sees it. Every key is always there.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileObject {
    #[schema(value_type = String)]
    id: FileId,
    #[schema(schema_with = build::file)]
    object: &'static str,
    bytes: u64,
    created_at: i64,
    #[schema(required)]
    expires_at: Option<i64>,
    filename: String,
    purpose: String,
    #[schema(schema_with = build::file_status)]
    status: &'static str,
    #[schema(required)]
    status_details: Option<String>,
}

impl From<File> for FileObject {
    fn from(file: File) -> Self {
        Self {
            id: file.id,
            object: "file",
            bytes: file.size_bytes,
            created_at: file.created_at.unix_timestamp(),
            expires_at: file.expires_at.map(time::OffsetDateTime::unix_timestamp),
            filename: file.filename,
            purpose: file.purpose,
            status: file.status.as_str(),
            status_details: file.status_details,
        }
    }
}

//! The files endpoints. An upload streams into the bucket; its row appears when the object is whole.

mod content;
mod create;
mod delete;
mod form;
pub(crate) mod incoming;
pub(crate) mod intake;
mod list;
pub(crate) mod purpose;
mod range;
mod retrieve;

pub use content::retrieve_file_content;
pub use create::create_file;
pub use delete::delete_file;
pub use list::list_files;
pub use purpose::{BATCH, BATCH_OUTPUT, FINE_TUNE};
pub use retrieve::retrieve_file;

use domain::FileId;
use serde::Serialize;
use store::files::File;

/// A file as a client sees it. Every key is always there.
#[derive(Debug, Serialize)]
pub struct FileObject {
    id: FileId,
    object: &'static str,
    bytes: u64,
    created_at: i64,
    expires_at: Option<i64>,
    filename: String,
    purpose: String,
    status: &'static str,
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

//! The uploads endpoints: a file that comes in parts. Each part streams into the bucket as an object of its own; they
//! are joined when the client says that all are there, and go through what every new file goes through.

pub mod add_part;
pub mod cancel;
pub mod complete;
pub mod create;
pub(crate) mod fields;

use domain::{Upload, UploadId};
use serde::Serialize;
use store::files::File;
use utoipa::ToSchema;

use crate::files::FileObject;

/// An upload as a client sees it. Every key is always there.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadObject {
    #[schema(value_type = String)]
    id: UploadId,
    object: &'static str,
    bytes: u64,
    created_at: i64,
    expires_at: i64,
    filename: String,
    purpose: String,
    status: &'static str,
    file: Option<FileObject>,
}

impl UploadObject {
    /// `file` is what came of it, if it is completed and the file is still there.
    fn of(upload: Upload, file: Option<File>) -> Self {
        Self {
            id: upload.id,
            object: "upload",
            bytes: upload.size_bytes,
            created_at: upload.created_at.unix_timestamp(),
            expires_at: upload.expires_at.unix_timestamp(),
            filename: upload.filename,
            purpose: upload.purpose,
            status: upload.status.as_str(),
            file: file.map(FileObject::from),
        }
    }
}

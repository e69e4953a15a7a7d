//! What a signed request may do: name an object without tricks, and write while there is room.

use std::path::PathBuf;

use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::keys;

/// Checked for every request before its body is read.
pub(super) struct Access {
    pub(super) root: PathBuf,
    pub(super) reserve_bytes: u64,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Signature is required"));
        }
        // The server keeps its own notes beside the buckets, and `..` would reach them.
        if let Some(key) = cx.s3_path().get_object_key() {
            keys::check(key).map_err(|error| {
                S3Error::with_message(S3ErrorCode::InvalidArgument, error.to_string())
            })?;
            if key.len() > keys::MAX_EMBEDDED_KEY_BYTES {
                return Err(s3_error!(KeyTooLongError));
            }
        }
        if stores_data(cx.s3_op().name()) {
            self.check_space()
        } else {
            Ok(())
        }
    }
}

impl Access {
    fn check_space(&self) -> S3Result<()> {
        let disk = rustix::fs::statvfs(&self.root).map_err(S3Error::internal_error)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) >= self.reserve_bytes {
            return Ok(());
        }
        let code = S3ErrorCode::Custom("StorageFull".into());
        let mut full = S3Error::with_message(code, "No space left on the server's disk");
        full.set_status_code(http::StatusCode::INSUFFICIENT_STORAGE);
        Err(full)
    }
}

fn stores_data(operation: &str) -> bool {
    matches!(
        operation,
        "PutObject"
            | "CopyObject"
            | "CreateMultipartUpload"
            | "UploadPart"
            | "UploadPartCopy"
            | "CompleteMultipartUpload"
    )
}

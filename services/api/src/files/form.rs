//! The form of an upload, read once and as it comes: the fields may stand before or after the file.

use artifacts::{ArtifactError, ObjectStore, Stored};
use async_stream::stream;
use axum::extract::Multipart;
use axum::extract::multipart::{Field, MultipartError};
use bytes::Bytes;
use dataset::{QuickScan, ScanReport};
use store::quotas::Room;
use utoipa::ToSchema;

use super::purpose;
use crate::error::ApiError;

/// No field but the file is longer than this.
const MAX_FIELD_BYTES: usize = 1024;
const MAX_FILENAME_CHARS: usize = 255;

/// When OpenAI's own limits let a file expire.
const EXPIRES_AFTER_SECS: std::ops::RangeInclusive<i64> = 3_600..=2_592_000;

/// The form, as the documentation shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a form is read field by field")]
pub(super) struct FileUpload {
    #[schema(value_type = String, format = Binary)]
    file: Bytes,
    purpose: String,
}

/// Where the file goes.
pub(super) struct Destination<'a> {
    pub(super) objects: &'a ObjectStore,
    pub(super) key: &'a str,
    pub(super) max_bytes: u64,
    /// What is left of what the project may store.
    pub(super) room: Option<Room>,
}

impl Destination<'_> {
    /// What it takes at most.
    fn bound(&self) -> u64 {
        let room = self.room.as_ref().map_or(u64::MAX, Room::bytes);
        self.max_bytes.min(room)
    }

    /// Why it did not take more.
    fn refusal(&self) -> ApiError {
        match &self.room {
            Some(room) if room.bytes() < self.max_bytes => {
                ApiError::quota_exceeded(&room.exceeded())
            }
            _ => ApiError::too_large("file", self.max_bytes).param("file"),
        }
    }
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) file: Option<StoredFile>,
    pub(super) purpose: Option<&'static str>,
    pub(super) expires_after_secs: Option<i64>,
    has_anchor: bool,
}

/// The file, in the bucket.
#[derive(Debug)]
pub(super) struct StoredFile {
    pub(super) filename: String,
    pub(super) stored: Stored,
    pub(super) scan: ScanReport,
}

impl Form {
    /// Reads the whole form into `self`, which tells the caller after an error what had been stored by then.
    pub(super) async fn read(
        &mut self,
        multipart: &mut Multipart,
        destination: &Destination<'_>,
    ) -> Result<(), ApiError> {
        while let Some(field) = multipart
            .next_field()
            .await
            .map_err(|error| broken(&error))?
        {
            let name = field.name().unwrap_or_default().to_owned();
            match name.as_str() {
                "file" if self.file.is_some() => {
                    return Err(ApiError::invalid(
                        "file",
                        "`file` is given twice; upload one file at a time.",
                    ));
                }
                "file" => self.file = Some(store(field, destination).await?),
                "purpose" => self.purpose = Some(purpose::parse(&text(field, "purpose").await?)?),
                "expires_after[seconds]" => self.expires_after_secs = Some(seconds(field).await?),
                "expires_after[anchor]" => {
                    anchor(field).await?;
                    self.has_anchor = true;
                }
                // Reading the next field skips over this one.
                _ => {}
            }
        }
        if self.has_anchor && self.expires_after_secs.is_none() {
            return Err(ApiError::invalid(
                "expires_after",
                "`expires_after[seconds]` is missing.",
            ));
        }
        Ok(())
    }
}

/// Streams the file into the bucket; it is counted and hashed on the way, and never held as a whole.
async fn store(
    mut field: Field<'_>,
    destination: &Destination<'_>,
) -> Result<StoredFile, ApiError> {
    let filename = filename(field.file_name().unwrap_or_default());
    let mut scan = QuickScan::new();
    let seen = &mut scan;
    let chunks = stream! {
        while let Some(chunk) = field.chunk().await.transpose() {
            if let Ok(chunk) = &chunk {
                seen.push(chunk);
            }
            yield chunk;
        }
    };
    let stored = destination
        .objects
        .put_stream(destination.key, chunks, destination.bound())
        .await;
    match stored {
        Ok(stored) => Ok(StoredFile {
            filename,
            stored,
            scan: scan.finish(),
        }),
        Err(ArtifactError::TooLarge { .. }) => Err(destination.refusal()),
        Err(ArtifactError::Source { .. }) => Err(cut_short()),
        Err(error) => Err(error.into()),
    }
}

async fn text(mut field: Field<'_>, name: &'static str) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(&mut field).await? {
        if bytes.len() + chunk.len() > MAX_FIELD_BYTES {
            return Err(ApiError::invalid(
                name,
                format!("`{name}` is longer than {MAX_FIELD_BYTES} bytes."),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid(name, format!("`{name}` is not UTF-8.")))
}

async fn next_chunk(field: &mut Field<'_>) -> Result<Option<Bytes>, ApiError> {
    field.chunk().await.map_err(|error| broken(&error))
}

async fn seconds(field: Field<'_>) -> Result<i64, ApiError> {
    let text = text(field, "expires_after[seconds]").await?;
    text.trim()
        .parse()
        .ok()
        .filter(|seconds| EXPIRES_AFTER_SECS.contains(seconds))
        .ok_or_else(|| {
            let (min, max) = EXPIRES_AFTER_SECS.into_inner();
            let message =
                format!("`expires_after[seconds]` must be a whole number between {min} and {max}.");
            ApiError::invalid("expires_after", message)
        })
}

async fn anchor(field: Field<'_>) -> Result<(), ApiError> {
    if text(field, "expires_after[anchor]").await? == "created_at" {
        return Ok(());
    }
    Err(ApiError::invalid(
        "expires_after",
        "`expires_after[anchor]` must be `created_at`.",
    ))
}

/// The last part of the name, without what no terminal or header should be sent.
fn filename(given: &str) -> String {
    let name = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_FILENAME_CHARS)
        .collect();
    if name.is_empty() {
        "file".to_owned()
    } else {
        name
    }
}

fn broken(error: &MultipartError) -> ApiError {
    match error.status().as_u16() {
        // A body that ends early is the commonest fault, and the parser's words for it are many.
        400 if error.body_text().to_lowercase().contains("incomplete") => cut_short(),
        400 => {
            ApiError::invalid_request(format!("The form cannot be read: {}.", error.body_text()))
        }
        _ => cut_short(),
    }
}

fn cut_short() -> ApiError {
    ApiError::invalid(
        "file",
        "The upload broke off before its end; nothing was stored. Send the file again.",
    )
    .code("upload_incomplete")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filename_is_one_printable_name() {
        assert_eq!(filename("../../etc/passwd"), "passwd");
        assert_eq!(filename("C:\\data\\träin.jsonl"), "träin.jsonl");
        assert_eq!(filename("a\u{0}b\r\nc"), "abc");
        assert_eq!(filename(""), "file");
        assert_eq!(filename(&"x".repeat(1000)).len(), MAX_FILENAME_CHARS);
    }
}

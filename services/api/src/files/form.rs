//! The form of an upload, read once and as it comes: the fields may stand before or after the file.

use bytes::Bytes;
use store::quotas::Room;
use utoipa::ToSchema;

use super::incoming::{FormField, Incoming, not_stored};
use super::intake::{Content, Destination, EXPIRES_AFTER_SECS, filename};
use super::purpose;
use crate::error::ApiError;
use crate::openapi::build;

/// No field but the file is longer than this.
const MAX_FIELD_BYTES: usize = 1024;
/// The form, as the documentation shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a form is read field by field")]
pub(super) struct FileUpload {
    /// Rows as JSON Lines, where the purpose is `fine-tune`.
    #[schema(value_type = String, format = Binary)]
    file: Bytes,
    #[schema(schema_with = purpose::schema)]
    purpose: String,
    /// Belongs to `expires_after[seconds]`.
    #[schema(rename = "expires_after[anchor]", required = false, schema_with = build::created_at)]
    anchor: String,
    /// The file goes when this much time has passed since its upload.
    #[schema(
        rename = "expires_after[seconds]",
        minimum = 3_600,
        maximum = 2_592_000
    )]
    seconds: Option<i64>,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// What is left of what the project may store.
    room: Option<Room>,
    pub(super) file: Option<StoredFile>,
    pub(super) purpose: Option<&'static str>,
    pub(super) expires_after_secs: Option<i64>,
    has_anchor: bool,
}

/// The file, in the bucket.
#[derive(Debug)]
pub(super) struct StoredFile {
    pub(super) filename: String,
    pub(super) content: Content,
}

impl Form {
    /// For a file that must fit into what is left of what the project may store.
    pub(super) fn within(room: Option<Room>) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// Reads the whole form into `self`, which tells the caller after an error what had been stored by then.
    pub(super) async fn read(
        &mut self,
        incoming: &mut Incoming,
        destination: &Destination<'_>,
    ) -> Result<(), ApiError> {
        while let Some(field) = incoming.next_field().await? {
            let name = field.name().to_owned();
            match name.as_str() {
                "file" if self.file.is_some() => {
                    return Err(ApiError::invalid(
                        "file",
                        "`file` is given twice; upload one file at a time.",
                    ));
                }
                "file" => self.file = Some(store(field, destination, self.room).await?),
                "purpose" => self.purpose = Some(purpose::parse(&text(field, "purpose").await?)?),
                "expires_after[seconds]" => self.expires_after_secs = Some(seconds(field).await?),
                "expires_after[anchor]" => {
                    anchor(field).await?;
                    self.has_anchor = true;
                }
                _ => field.skip().await?,
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

async fn store(
    field: FormField<'_>,
    destination: &Destination<'_>,
    room: Option<Room>,
) -> Result<StoredFile, ApiError> {
    let filename = filename(field.file_name());
    let content = destination.take(field.chunks()).await;
    let content = content.map_err(|error| not_stored(error, room, "file", "file"))?;
    Ok(StoredFile { filename, content })
}

async fn text(field: FormField<'_>, name: &'static str) -> Result<String, ApiError> {
    let Some(bytes) = field.short(MAX_FIELD_BYTES).await? else {
        return Err(ApiError::invalid(
            name,
            format!("`{name}` is longer than {MAX_FIELD_BYTES} bytes."),
        ));
    };
    String::from_utf8(bytes).map_err(|_| ApiError::invalid(name, format!("`{name}` is not UTF-8.")))
}

async fn seconds(field: FormField<'_>) -> Result<i64, ApiError> {
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

async fn anchor(field: FormField<'_>) -> Result<(), ApiError> {
    if text(field, "expires_after[anchor]").await? == "created_at" {
        return Ok(());
    }
    Err(ApiError::invalid(
        "expires_after",
        "`expires_after[anchor]` must be `created_at`.",
    ))
}

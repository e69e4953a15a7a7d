//! `POST /v1/uploads`.

use axum::extract::State;
use axum::response::Response;
use domain::upload::UPLOAD_LIFETIME;
use domain::{FieldError, Upload, UploadId, UploadStatus};
use serde_json::{Map, Value};
use store::audit::{self, Act};
use store::quotas;
use store::uploads;
use utoipa::ToSchema;

use super::{UploadObject, fields};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::files::intake::filename;
use crate::files::purpose;
use crate::idempotency::{Once, OnceHeader, Opened};

/// The body, as the documentation shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a body is read field by field")]
struct NewUpload {
    /// How long the file will be.
    bytes: u64,
    filename: String,
    mime_type: String,
    purpose: String,
    expires_after: Option<ExpiresAfter>,
}

/// When a file is deleted by itself.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a body is read field by field")]
pub(crate) struct ExpiresAfter {
    /// Always `created_at`.
    anchor: String,
    /// Between an hour and 30 days.
    seconds: i64,
}

/// Begin an upload of a file in parts.
#[utoipa::path(
    post,
    path = "/v1/uploads",
    tag = "Files",
    params(OnceHeader),
    request_body(content = NewUpload),
    responses((status = 200, body = UploadObject, description = "The upload, ready for its parts."))
)]
pub async fn create_upload(
    State(state): State<AppState>,
    tenant: Tenant,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let asked = fields::of(&body)?;
    // Clients must say it, and it is theirs to know: nothing here goes by it.
    fields::text(asked, "mime_type")?;
    let now = state.clock.now();
    let upload = Upload {
        id: UploadId::new(),
        project_id: tenant.project_id,
        filename: filename(fields::text(asked, "filename")?),
        purpose: purpose::parse(fields::text(asked, "purpose")?)?.to_owned(),
        size_bytes: size(asked, state.limits.max_upload_bytes)?,
        expires_after_secs: fields::expires_after(asked, "expires_after")?,
        status: UploadStatus::Pending,
        completed: None,
        created_at: now,
        expires_at: now + UPLOAD_LIFETIME,
    };
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let once = match once.open(&mut tx, &body, now).await? {
        Opened::Answered(answer) => return Ok(answer),
        Opened::New(once) => once,
    };
    // Parts of a file that cannot be kept need not be sent. It is looked at again when they are joined.
    quotas::room(&mut tx, upload.size_bytes).await?;
    uploads::create(&mut tx, &upload).await?;
    let act = Act::new("upload.created", "upload", upload.id);
    let answer = once.keep(&mut tx, &UploadObject::of(upload, None)).await?;
    audit::record(&mut tx, &tenant.actor(), &act, now).await?;
    tx.commit().await?;
    Ok(answer)
}

fn size(fields: &Map<String, Value>, max_bytes: u64) -> Result<u64, FieldError> {
    let message = match fields.get("bytes") {
        None | Some(Value::Null) => "is required".to_owned(),
        Some(bytes) => match bytes.as_u64().filter(|bytes| *bytes > 0) {
            Some(bytes) if bytes <= max_bytes => return Ok(bytes),
            Some(_) => format!("must be {max_bytes} at most: no upload may be larger here"),
            None => "must be the file's length in bytes, 1 or more".to_owned(),
        },
    };
    Err(FieldError::new("bytes", message))
}

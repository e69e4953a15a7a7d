//! `POST /v1/files`.

use std::time::Duration;

use artifacts::keys;
use axum::Json;
use axum::extract::multipart::MultipartRejection;
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use dataset::{FirstRow, ScanReport};
use domain::FileId;
use domain::limits::MAX_LINE_BYTES;
use serde_json::json;
use store::audit::{self, Act};
use store::files::{self, File, FileStatus};
use store::quotas::{self, Room};
use tracing::Instrument as _;

use super::form::{Destination, FileUpload, Form, StoredFile};
use super::{FINE_TUNE, FileObject};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;

/// What a form adds to its file: boundaries, headers, small fields.
const FORM_OVERHEAD_BYTES: u64 = 64 << 10;
/// How long a refused upload is still read, so that the client gets to read why.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Upload a file. It is refused at once if it is plainly no JSON Lines; a job looks closer.
#[utoipa::path(
    post,
    path = "/v1/files",
    tag = "Files",
    request_body(content = FileUpload, content_type = "multipart/form-data"),
    responses((status = 200, body = FileObject, description = "The file, stored."))
)]
pub async fn create_file(
    State(state): State<AppState>,
    tenant: Tenant,
    request: Request,
) -> Result<Json<FileObject>, ApiError> {
    // A client that hangs up cancels this handler. Cleaning up after it must not be cancelled as well.
    let upload = tokio::spawn(upload(state, tenant, request).in_current_span());
    match upload.await {
        Ok(created) => created.map(|file| Json(file.into())),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(ApiError::internal(error)),
    }
}

async fn upload(state: AppState, tenant: Tenant, request: Request) -> Result<File, ApiError> {
    let max_bytes = state.limits.max_file_bytes;
    let declared_bytes = declared_length(request.headers());
    let may_drain = !request.headers().contains_key(EXPECT);
    let mut multipart = Multipart::from_request(request, &())
        .await
        .map_err(|error| not_a_form(&error))?;

    let received = if declared_bytes > max_bytes.saturating_add(FORM_OVERHEAD_BYTES) {
        Err(ApiError::too_large("file", max_bytes).param("file"))
    } else {
        let wanted = declared_bytes.saturating_sub(FORM_OVERHEAD_BYTES);
        match room(&state, &tenant, wanted).await {
            Ok(room) => receive(&state, &tenant, room, &mut multipart).await,
            Err(error) => Err(error),
        }
    };
    if received.is_err() && may_drain {
        drain(multipart).await;
    }
    let file = received?;

    // When this fails, the object is an orphan: whether the commit went through cannot be known here, and a row
    // without its object would be worse. The sweep takes it away.
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    files::create(&mut tx, &file).await?;
    if let Err(refused) = quotas::admit_bytes(&mut tx, file.size_bytes).await {
        drop(tx);
        discard(&state, &keys::file(file.project_id, file.id)).await;
        return Err(refused.into());
    }
    audit::record(&mut tx, &tenant.actor(), &created(&file), file.created_at).await?;
    tx.commit().await?;
    metrics::counter!("attune_uploaded_bytes_total").increment(file.size_bytes);
    Ok(file)
}

/// How much fits into what the project may store, before anything is. Another upload may take it meanwhile, so it is
/// checked again with the row.
async fn room(state: &AppState, tenant: &Tenant, wanted: u64) -> Result<Option<Room>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    Ok(quotas::room(&mut tx, wanted).await?)
}

/// What the audit log keeps of it.
fn created(file: &File) -> Act {
    let details = json!({"purpose": file.purpose, "bytes": file.size_bytes, "sha256": file.sha256});
    Act::new("file.created", "file", file.id).details(details)
}

/// The file, its object stored. After an error nothing is.
async fn receive(
    state: &AppState,
    tenant: &Tenant,
    room: Option<Room>,
    multipart: &mut Multipart,
) -> Result<File, ApiError> {
    let id = FileId::new();
    let key = keys::file(tenant.project_id, id);
    let destination = Destination {
        objects: &state.objects,
        key: &key,
        max_bytes: state.limits.max_file_bytes,
        room,
    };
    let mut form = Form::default();
    let read = form.read(multipart, &destination).await;
    let was_stored = form.file.is_some();
    let file = read.and_then(|()| judged(form, id, tenant, state.clock.now()));
    if file.is_err() && was_stored {
        discard(state, &key).await;
    }
    file
}

/// Deletes the object of a refused upload.
async fn discard(state: &AppState, key: &str) {
    if let Err(error) = state.objects.delete(key).await {
        let chain = domain::failure::error_chain(&error);
        tracing::warn!(error = %chain, "A refused upload's object stays until the sweep: {chain}");
    }
}

/// The row of what was stored, if it is what its purpose asks for.
fn judged(
    form: Form,
    id: FileId,
    tenant: &Tenant,
    now: time::OffsetDateTime,
) -> Result<File, ApiError> {
    let missing =
        |name: &str| ApiError::invalid(name, format!("The form's field `{name}` is missing."));
    let StoredFile {
        filename,
        stored,
        scan,
    } = form.file.ok_or_else(|| missing("file"))?;
    let purpose = form.purpose.ok_or_else(|| missing("purpose"))?;
    if stored.size_bytes == 0 {
        return Err(ApiError::invalid("file", "The file is empty.").code("empty_file"));
    }
    if purpose == FINE_TUNE {
        check_rows(&scan)?;
    }
    Ok(File {
        id,
        project_id: tenant.project_id,
        filename,
        purpose: purpose.to_owned(),
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
        n_lines: Some(scan.n_rows),
        status: FileStatus::Processed,
        status_details: None,
        created_at: now,
        expires_at: form
            .expires_after_secs
            .map(|secs| now + time::Duration::seconds(secs)),
    })
}

fn check_rows(scan: &ScanReport) -> Result<(), ApiError> {
    let refused =
        |message: String| Err(ApiError::invalid("file", message).code("invalid_file_format"));
    if scan.first_row == FirstRow::Missing {
        return refused("The file has no rows: all of its lines are blank.".to_owned());
    }
    if scan.first_row == FirstRow::NotAnObject {
        return refused(
            "The first line that is not blank is not a JSON object. A file to fine-tune on is JSON Lines: \
             one object such as {\"messages\": […]} on each line."
                .to_owned(),
        );
    }
    if scan.max_line_bytes > MAX_LINE_BYTES as u64 {
        return refused(format!(
            "The longest line has {} bytes; a line may have {MAX_LINE_BYTES}. Rows are separated by newlines.",
            scan.max_line_bytes
        ));
    }
    Ok(())
}

/// Reads what is left. Answering while the client still sends would close the connection on it, and it would
/// see a broken pipe instead of the reason.
async fn drain(mut multipart: Multipart) {
    let rest = async { while let Ok(Some(_)) = multipart.next_field().await {} };
    // A client that goes on for longer than this has to live with the broken pipe.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
}

fn declared_length(headers: &HeaderMap) -> u64 {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

fn not_a_form(rejection: &MultipartRejection) -> ApiError {
    match rejection {
        MultipartRejection::InvalidBoundary(_) => {
            ApiError::unsupported_media_type("multipart/form-data; boundary=…")
        }
        _ => ApiError::invalid_request("The form cannot be read."),
    }
}

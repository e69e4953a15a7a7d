//! `POST /v1/files`.

use artifacts::keys;
use axum::extract::{Multipart, Request, State};
use axum::response::Response;
use domain::FileId;
use serde_json::{Value, json};
use store::files::{self, File};

use super::FileObject;
use super::form::{FileUpload, Form, StoredFile};
use super::incoming::Incoming;
use super::intake::{Description, Destination, judged, to_the_end};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::idempotency::{Once, OnceHeader, Opened};

/// Upload a file. It is refused at once if it is plainly no JSON Lines; a job looks closer.
#[utoipa::path(
    post,
    path = "/v1/files",
    tag = "Files",
    params(OnceHeader),
    request_body(content = FileUpload, content_type = "multipart/form-data"),
    responses((status = 200, body = FileObject, description = "The file, stored."))
)]
pub async fn create_file(
    State(state): State<AppState>,
    tenant: Tenant,
    once: Once,
    request: Request,
) -> Result<Response, ApiError> {
    to_the_end(upload(state, tenant, once, request)).await
}

async fn upload(
    state: AppState,
    tenant: Tenant,
    once: Once,
    request: Request,
) -> Result<Response, ApiError> {
    let mut incoming = Incoming::open(request, "file", state.limits.max_file_bytes).await?;
    let received = receive(&state, &tenant, &mut incoming.form).await;
    let file = incoming.settle(received).await?;

    // When this fails, the object is an orphan: whether the commit went through cannot be known here, and a row
    // without its object would be worse. The sweep takes it away.
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    // What was sent is known only now that it is stored.
    let once = match once.open(&mut tx, &said(&file), file.created_at).await {
        Ok(Opened::New(once)) => once,
        Ok(Opened::Answered(answer)) => {
            give_up(&state, &file).await;
            return Ok(answer);
        }
        Err(error) => {
            give_up(&state, &file).await;
            return Err(error);
        }
    };
    files::create(&mut tx, &file).await?;
    let size_bytes = file.size_bytes;
    let answer = once.keep(&mut tx, &FileObject::from(file)).await?;
    tx.commit().await?;
    metrics::counter!("attune_uploaded_bytes_total").increment(size_bytes);
    Ok(answer)
}

async fn give_up(state: &AppState, file: &File) {
    let destination = Destination {
        objects: &state.objects,
        key: &keys::file(file.project_id, file.id),
        max_bytes: state.limits.max_file_bytes,
    };
    destination.give_up().await;
}

/// What tells one upload from another. The form's bytes do not: clients draw a new boundary for each try.
fn said(file: &File) -> Value {
    let lifetime = file
        .expires_at
        .map(|end| (end - file.created_at).whole_seconds());
    json!({
        "sha256": file.sha256,
        "filename": file.filename,
        "purpose": file.purpose,
        "expires_after": lifetime,
    })
}

/// The file, its object stored. After an error nothing is.
async fn receive(
    state: &AppState,
    tenant: &Tenant,
    multipart: &mut Multipart,
) -> Result<File, ApiError> {
    let id = FileId::new();
    let key = keys::file(tenant.project_id, id);
    let destination = Destination {
        objects: &state.objects,
        key: &key,
        max_bytes: state.limits.max_file_bytes,
    };
    let mut form = Form::default();
    let read = form.read(multipart, &destination).await;
    let was_stored = form.file.is_some();
    let file = read.and_then(|()| described(form, id, tenant, state.clock.now()));
    if file.is_err() && was_stored {
        destination.give_up().await;
    }
    file
}

fn described(
    form: Form,
    id: FileId,
    tenant: &Tenant,
    now: time::OffsetDateTime,
) -> Result<File, ApiError> {
    let missing =
        |name: &str| ApiError::invalid(name, format!("The form's field `{name}` is missing."));
    let StoredFile { filename, content } = form.file.ok_or_else(|| missing("file"))?;
    let purpose = form.purpose.ok_or_else(|| missing("purpose"))?;
    let description = Description {
        id,
        project_id: tenant.project_id,
        filename,
        purpose: purpose.to_owned(),
        expires_after_secs: form.expires_after_secs,
    };
    judged(description, content, now)
}

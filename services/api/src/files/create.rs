//! `POST /v1/files`.

use artifacts::keys;
use axum::extract::{Request, State};
use axum::response::Response;
use buckets::ProjectObjects;
use domain::FileId;
use serde_json::{Value, json};
use store::audit::{self, Act};
use store::files::{self, File};
use store::quotas::{self, Room};
use store::{StoreError, TenantTx};

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
    // It holds a form, a file on its way and a transaction: too large to be moved about.
    to_the_end(Box::pin(upload(state, tenant, once, request))).await
}

async fn upload(
    state: AppState,
    tenant: Tenant,
    once: Once,
    request: Request,
) -> Result<Response, ApiError> {
    let mut incoming = Incoming::open(request, "file", state.limits.max_file_bytes).await?;
    let received = match Place::find(&state, &tenant, incoming.least_bytes()).await {
        Ok(place) => receive(&state, &tenant, place, &mut incoming).await,
        Err(refused) => Err(refused),
    };
    let (file, objects) = incoming.settle(received).await?;

    // When this fails, the object is an orphan: whether the commit went through cannot be known here, and a row
    // without its object would be worse. The sweep takes it away.
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    // What was sent is known only now that it is stored.
    let once = match once.open(&mut tx, &said(&file), file.created_at).await {
        Ok(Opened::New(once)) => once,
        Ok(Opened::Answered(answer)) => {
            give_up(&objects, &file).await;
            return Ok(answer);
        }
        Err(error) => {
            give_up(&objects, &file).await;
            return Err(error);
        }
    };
    if let Err(refused) = store_row(&mut tx, &objects, &file).await {
        drop(tx);
        give_up(&objects, &file).await;
        return Err(refused.into());
    }
    let (size_bytes, act, now) = (file.size_bytes, created(&file), file.created_at);
    let answer = once.keep(&mut tx, &FileObject::from(file)).await?;
    audit::record(&mut tx, &tenant.actor(), &act, now).await?;
    tx.commit().await?;
    metrics::counter!("attune_uploaded_bytes_total").increment(size_bytes);
    Ok(answer)
}

async fn store_row(
    tx: &mut TenantTx,
    objects: &ProjectObjects,
    file: &File,
) -> Result<(), StoreError> {
    objects.hold(tx).await?;
    files::create(tx, file).await?;
    quotas::admit_bytes(tx, file.size_bytes).await
}

async fn give_up(objects: &ProjectObjects, file: &File) {
    let destination = Destination {
        objects,
        key: &keys::file(file.project_id, file.id),
        max_bytes: 0,
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

/// Where a file goes, and how much of it fits into what the project may store. Another upload may take that meanwhile, so
/// it is checked again with the row.
struct Place {
    objects: ProjectObjects,
    room: Option<Room>,
}

impl Place {
    /// Looks before anything is stored.
    async fn find(state: &AppState, tenant: &Tenant, wanted: u64) -> Result<Self, ApiError> {
        let mut tx = state.store.tenant_tx(tenant.project_id).await?;
        let room = quotas::room(&mut tx, wanted).await?;
        let objects = state.buckets.of(&mut tx).await?;
        Ok(Self { objects, room })
    }
}

/// What the audit log keeps of a new file.
pub(crate) fn created(file: &File) -> Act {
    let details = json!({"purpose": file.purpose, "bytes": file.size_bytes, "sha256": file.sha256});
    Act::new("file.created", "file", file.id).details(details)
}

/// The file, its object stored, and where. After an error nothing is.
async fn receive(
    state: &AppState,
    tenant: &Tenant,
    Place { objects, room }: Place,
    incoming: &mut Incoming,
) -> Result<(File, ProjectObjects), ApiError> {
    let id = FileId::new();
    let room_bytes = room.map_or(u64::MAX, |room| room.bytes());
    let destination = Destination {
        objects: &objects,
        key: &keys::file(tenant.project_id, id),
        max_bytes: state.limits.max_file_bytes.min(room_bytes),
    };
    let mut form = Form::within(room);
    let read = form.read(incoming, &destination).await;
    let was_stored = form.file.is_some();
    let file = read.and_then(|()| described(form, id, tenant, state.clock.now()));
    if file.is_err() && was_stored {
        destination.give_up().await;
    }
    Ok((file?, objects))
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

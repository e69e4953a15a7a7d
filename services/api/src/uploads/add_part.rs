//! `POST /v1/uploads/{id}/parts`.

use artifacts::{Stored, keys};
use axum::Json;
use axum::extract::{Request, State};
use buckets::ProjectObjects;
use bytes::Bytes;
use domain::limits::MAX_PARTS;
use domain::{PartId, Upload, UploadId};
use serde::Serialize;
use store::TenantTx;
use store::quotas::{self, Room};
use store::uploads::{self, Part};
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode, Thing};
use crate::extract::PathId;
use crate::files::incoming::{FormField, Incoming, not_stored};
use crate::files::intake::{Destination, to_the_end};

/// A part as a client sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadPart {
    #[schema(value_type = String)]
    id: PartId,
    object: &'static str,
    created_at: i64,
    #[schema(value_type = String)]
    upload_id: UploadId,
}

impl From<Part> for UploadPart {
    fn from(part: Part) -> Self {
        Self {
            id: part.id,
            object: "upload.part",
            created_at: part.created_at.unix_timestamp(),
            upload_id: part.upload_id,
        }
    }
}

/// The form, as the documentation shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a form is read field by field")]
struct PartUpload {
    /// 64 MB at most.
    #[schema(value_type = String, format = Binary)]
    data: Bytes,
}

/// Add a part, beside others that are under way. Their order is told when the upload is completed.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}/parts",
    tag = "Files",
    params(
        ("id" = String, Path, description = "The upload's id, `upload_…`."),
    ),
    request_body(content = PartUpload, content_type = "multipart/form-data"),
    responses((status = 200, body = UploadPart, description = "The part, stored."))
)]
pub async fn add_upload_part(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<UploadId>,
    request: Request,
) -> Result<Json<UploadPart>, ApiError> {
    let part = to_the_end(add(state, tenant, id, request)).await?;
    Ok(Json(part.into()))
}

async fn add(
    state: AppState,
    tenant: Tenant,
    id: UploadId,
    request: Request,
) -> Result<Part, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let upload = uploads::find(&mut tx, id).await?;
    let upload = upload.ok_or_else(|| ApiError::not_found(Thing::Upload, &id.to_string()))?;
    upload.check_open(state.clock.now())?;
    let room = quotas::left(&mut tx).await?;
    let objects = state.buckets.of(&mut tx).await?;
    // Sending a part may take minutes; the transaction must not.
    tx.commit().await?;

    let part_id = PartId::new();
    let key = keys::upload_part(tenant.project_id, id, part_id);
    let max_bytes = state.limits.max_part_bytes.min(upload.size_bytes);
    let destination = Destination {
        objects: &objects,
        key: &key,
        max_bytes: room.map_or(max_bytes, |room| room.bytes().min(max_bytes)),
    };
    let mut incoming = Incoming::open(request, "data", max_bytes).await?;
    let received = receive(&mut incoming, &destination, room).await;
    let stored = incoming.settle(received).await?;
    let part = Part {
        id: part_id,
        upload_id: id,
        size_bytes: stored.size_bytes,
        created_at: state.clock.now(),
    };
    let added = record(&state, &tenant, &objects, part).await;
    if added.is_err() {
        destination.give_up().await;
    }
    added
}

/// Reads the form and stores its one part.
async fn receive(
    form: &mut Incoming,
    destination: &Destination<'_>,
    room: Option<Room>,
) -> Result<Stored, ApiError> {
    let mut stored = None;
    let read = read(form, destination, room, &mut stored).await;
    let refused = |message| Err(ApiError::invalid("data", message));
    let received = match (read, &stored) {
        (Err(error), _) => Err(error),
        (Ok(()), None) => refused("The form's field `data` is missing."),
        (Ok(()), Some(part)) if part.size_bytes == 0 => refused("The part is empty."),
        (Ok(()), Some(part)) => Ok(part.clone()),
    };
    if received.is_err() && stored.is_some() {
        destination.give_up().await;
    }
    received
}

async fn read(
    form: &mut Incoming,
    destination: &Destination<'_>,
    room: Option<Room>,
    stored: &mut Option<Stored>,
) -> Result<(), ApiError> {
    while let Some(field) = form.next_field().await? {
        if field.name() != "data" {
            field.skip().await?;
            continue;
        }
        if stored.is_some() {
            let message = "`data` is given twice; send one part at a time.";
            return Err(ApiError::invalid("data", message));
        }
        *stored = Some(store(field, destination, room).await?);
    }
    Ok(())
}

async fn store(
    field: FormField<'_>,
    destination: &Destination<'_>,
    room: Option<Room>,
) -> Result<Stored, ApiError> {
    let stored = destination
        .objects
        .put_stream(destination.key, field.chunks(), destination.max_bytes)
        .await;
    stored.map_err(|error| not_stored(error, room, "part", "data"))
}

/// Writes down that the part is there, if the upload still takes it.
async fn record(
    state: &AppState,
    tenant: &Tenant,
    objects: &ProjectObjects,
    part: Part,
) -> Result<Part, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let upload = uploads::find_for_update(&mut tx, part.upload_id).await?;
    let upload =
        upload.ok_or_else(|| ApiError::not_found(Thing::Upload, &part.upload_id.to_string()))?;
    upload.check_open(state.clock.now())?;
    check_room(&mut tx, &upload, &part).await?;
    objects.hold(&mut tx).await?;
    uploads::add_part(&mut tx, &part).await?;
    quotas::admit_bytes(&mut tx, part.size_bytes).await?;
    tx.commit().await?;
    metrics::counter!("attune_uploaded_bytes_total").increment(part.size_bytes);
    Ok(part)
}

/// A client that lost an answer sends its part again, so there may be more parts than the file needs; but an upload
/// is no place to store things without end.
async fn check_room(tx: &mut TenantTx, upload: &Upload, part: &Part) -> Result<(), ApiError> {
    let parts = uploads::parts(tx, upload.id).await?;
    let refused =
        |message: String| Err(ApiError::invalid("data", message).code(ErrorCode::TooManyParts));
    if parts.len() as u64 >= MAX_PARTS {
        return refused(format!("An upload has {MAX_PARTS} parts at most."));
    }
    let total = part.size_bytes + parts.iter().map(|part| part.size_bytes).sum::<u64>();
    if total > upload.size_bytes.saturating_mul(2) {
        return refused(format!(
            "With this part the upload would have {total} bytes of parts, more than twice the {} that were declared. \
             Complete it, or cancel it and begin another.",
            upload.size_bytes
        ));
    }
    Ok(())
}

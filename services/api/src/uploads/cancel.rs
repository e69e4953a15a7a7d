//! `POST /v1/uploads/{id}/cancel`.

use artifacts::keys;
use axum::Json;
use axum::extract::State;
use domain::{UploadId, UploadStatus};
use store::audit::{self, Act};
use store::uploads;

use super::UploadObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathId;

/// Give an upload up; its parts are deleted. A cancelled one is answered as it is, a completed one is a 400.
///
/// Clients announce JSON and send nothing, so the body is not looked at.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}/cancel",
    tag = "Files",
    params(
        ("id" = String, Path, description = "The upload's id, `upload_…`."),
    ),
    responses((status = 200, body = UploadObject, description = "The upload, cancelled."))
)]
pub async fn cancel_upload(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<UploadId>,
) -> Result<Json<UploadObject>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let upload = uploads::find_for_update(&mut tx, id).await?;
    let upload = upload.ok_or_else(|| ApiError::not_found(Thing::Upload, &id.to_string()))?;
    if upload.status == UploadStatus::Cancelled {
        return Ok(Json(UploadObject::of(upload, None)));
    }
    let upload = upload.cancel(state.clock.now())?;
    uploads::end(
        &mut tx,
        &upload,
        &keys::upload_prefix(tenant.project_id, id),
    )
    .await?;
    audit::record(
        &mut tx,
        &tenant.actor(),
        &Act::new("upload.cancelled", "upload", id),
        state.clock.now(),
    )
    .await?;
    tx.commit().await?;
    Ok(Json(UploadObject::of(upload, None)))
}

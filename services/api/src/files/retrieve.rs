//! `GET /v1/files/{id}`.

use axum::Json;
use axum::extract::State;
use domain::FileId;
use store::files;

use super::FileObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathId;

/// Describe a file.
#[utoipa::path(
    get,
    path = "/v1/files/{id}",
    tag = "Files",
    params(
        ("id" = String, Path, description = "The file's id, `file-…`."),
    ),
    responses((status = 200, body = FileObject, description = "The file."))
)]
pub async fn retrieve_file(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<FileId>,
) -> Result<Json<FileObject>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let file = files::find(&mut tx, id).await?;
    let file = file.ok_or_else(|| ApiError::not_found(Thing::File, &id.to_string()))?;
    Ok(Json(file.into()))
}

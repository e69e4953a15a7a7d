//! `GET /v1/batches/{id}`.

use axum::Json;
use axum::extract::State;
use domain::BatchId;
use store::batches;

use super::BatchObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathId;

/// Look at a batch.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}",
    tag = "Batches",
    params(
        ("id" = String, Path, description = "The batch's id, `batch_…`."),
    ),
    responses((status = 200, body = BatchObject, description = "The batch."))
)]
pub async fn retrieve_batch(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<BatchId>,
) -> Result<Json<BatchObject>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let batch = batches::find(&mut tx, id).await?;
    let batch = batch.ok_or_else(|| ApiError::not_found(Thing::Batch, &id.to_string()))?;
    Ok(Json(batch.into()))
}

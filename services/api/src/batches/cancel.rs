//! `POST /v1/batches/{id}/cancel`.

use axum::Json;
use axum::extract::State;
use domain::BatchId;
use store::audit::{self, Act};
use store::batches;

use super::BatchObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathId;

/// Cancel a batch. It is `cancelling` until the files with what was answered by then are written. Cancelling a
/// finished batch is a 400; a cancelled one is answered as it is.
///
/// Clients announce JSON and send nothing, so the body is not looked at.
#[utoipa::path(
    post,
    path = "/v1/batches/{id}/cancel",
    tag = "Batches",
    params(
        ("id" = String, Path, description = "The batch's id, `batch_…`."),
    ),
    responses((status = 200, body = BatchObject, description = "The batch, on its way to its end."))
)]
pub async fn cancel_batch(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<BatchId>,
) -> Result<Json<BatchObject>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let batch = batches::find_for_update(&mut tx, id).await?;
    let batch = batch.ok_or_else(|| ApiError::not_found(Thing::Batch, &id.to_string()))?;
    let batch = batch.cancel(state.clock.now())?;
    batches::save(&mut tx, &batch).await?;
    audit::record(
        &mut tx,
        &tenant.actor(),
        &Act::new("batch.cancelled", "batch", id),
        state.clock.now(),
    )
    .await?;
    tx.commit().await?;
    Ok(Json(batch.into()))
}

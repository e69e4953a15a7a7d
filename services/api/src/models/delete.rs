//! `DELETE /v1/models/{model}`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use store::models;

use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathName;

/// What is left of a model.
#[derive(Debug, Serialize)]
pub struct DeletedModel {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// Delete one of the project's own models. Base models belong to the installation: here they are not found.
pub async fn delete_model(
    State(state): State<AppState>,
    tenant: Tenant,
    PathName(name): PathName,
) -> Result<Json<DeletedModel>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    if !models::delete(&mut tx, &name, state.clock.now()).await? {
        return Err(ApiError::not_found(Thing::Model, &name));
    }
    tx.commit().await?;
    Ok(Json(DeletedModel {
        id: name,
        object: "model",
        deleted: true,
    }))
}

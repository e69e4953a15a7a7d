//! `DELETE /v1/models/{model}`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use store::audit::{self, Act};
use store::models;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathName;
use crate::openapi::build;

/// What is left of a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedModel {
    id: String,
    #[schema(schema_with = build::model)]
    object: &'static str,
    deleted: bool,
}

/// Delete one of the project's own models, as an owner of the project. Base models belong to the installation: here they are not found.
#[utoipa::path(
    delete,
    path = "/v1/models/{model}",
    tag = "Models",
    params(
        ("model" = String, Path, description = "The model's name. Its slashes may stand as they are or as `%2F`."),
    ),
    responses((status = 200, body = DeletedModel, description = "The model is gone."))
)]
pub async fn delete_model(
    State(state): State<AppState>,
    tenant: Tenant,
    PathName(name): PathName,
) -> Result<Json<DeletedModel>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    if !models::delete(&mut tx, &name, state.clock.now()).await? {
        return Err(ApiError::not_found(Thing::Model, &name));
    }
    audit::record(
        &mut tx,
        &tenant.actor(),
        &Act::new("model.deleted", "model", &name),
        state.clock.now(),
    )
    .await?;
    tx.commit().await?;
    Ok(Json(DeletedModel {
        id: name,
        object: "model",
        deleted: true,
    }))
}

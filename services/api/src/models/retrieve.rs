//! `GET /v1/models/{model}`.

use axum::Json;
use axum::extract::State;
use store::models;

use super::ModelObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathName;

/// Describe a model that the project may use.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "Models",
    params(
        ("model" = String, Path, description = "The model's name. Its slashes may stand as they are or as `%2F`."),
    ),
    responses((status = 200, body = ModelObject, description = "The model."))
)]
pub async fn retrieve_model(
    State(state): State<AppState>,
    tenant: Tenant,
    PathName(name): PathName,
) -> Result<Json<ModelObject>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let found = models::resolve(&mut tx, &name).await?;
    let model = found.ok_or_else(|| ApiError::not_found(Thing::Model, &name))?;
    Ok(Json(match &model.tuned {
        Some(tuned) => ModelObject::fine_tuned(tuned, tenant.org_id),
        None => ModelObject::base(&model.base),
    }))
}

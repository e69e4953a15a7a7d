//! `GET /v1/models`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use store::{base_models, models};
use utoipa::ToSchema;

use super::ModelObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::openapi::build;

/// All models; this list has no pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    #[schema(schema_with = build::list)]
    object: &'static str,
    data: Vec<ModelObject>,
}

/// List the base models and the project's own, checkpoints included.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "Models",
    responses((status = 200, body = ModelList, description = "Every model that the project may use."))
)]
pub async fn list_models(
    State(state): State<AppState>,
    tenant: Tenant,
) -> Result<Json<ModelList>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let base = base_models::list(&mut tx).await?;
    let tuned = models::list(&mut tx).await?;
    let base = base.iter().map(ModelObject::base);
    let tuned = tuned
        .iter()
        .map(|model| ModelObject::fine_tuned(model, tenant.org_id));
    Ok(Json(ModelList {
        object: "list",
        data: base.chain(tuned).collect(),
    }))
}

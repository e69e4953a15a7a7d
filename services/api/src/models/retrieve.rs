//! `GET /v1/models/{model}`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use store::models;

use super::{ModelObject, download, limits};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::{ModelPart, Params, PathName, PathPart};

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
    PathPart(name, part): PathPart,
    params: Params,
) -> Result<Response, ApiError> {
    match part {
        ModelPart::Itself => {}
        ModelPart::Limits => {
            let limits = limits::retrieve_model_limits(State(state), tenant, PathName(name));
            return Ok(limits.await?.into_response());
        }
        ModelPart::Download => {
            return download::download_model(State(state), tenant, PathName(name), params).await;
        }
    }
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let found = models::resolve(&mut tx, &name).await?;
    let model = found.ok_or_else(|| ApiError::not_found(Thing::Model, &name))?;
    let view = match &model.tuned {
        Some(tuned) => ModelObject::fine_tuned(tuned, tenant.org_id),
        None => ModelObject::base(&model.base),
    };
    Ok(Json(view).into_response())
}

//! `GET /v1/webhook_endpoints/{id}`.

use axum::Json;
use axum::extract::State;
use domain::WebhookEndpointId;
use store::webhooks;

use super::{WebhookEndpoint, missing};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::PathId;

/// Retrieve an endpoint.
#[utoipa::path(
    get,
    path = "/v1/webhook_endpoints/{id}",
    tag = "Webhooks",
    params(("id" = String, Path, description = "The endpoint's id, `we_…`.")),
    responses((status = 200, body = WebhookEndpoint, description = "The endpoint."))
)]
pub async fn retrieve_webhook_endpoint(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<WebhookEndpointId>,
) -> Result<Json<WebhookEndpoint>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let endpoint = webhooks::find(&mut tx, id).await?;
    Ok(Json(endpoint.ok_or_else(|| missing(id))?.into()))
}

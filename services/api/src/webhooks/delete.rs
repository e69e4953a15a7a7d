//! `DELETE /v1/webhook_endpoints/{id}`.

use axum::Json;
use axum::extract::State;
use domain::WebhookEndpointId;
use serde::Serialize;
use store::webhooks;
use utoipa::ToSchema;

use super::{missing, record};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::PathId;

/// What is left of an endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedWebhookEndpoint {
    #[schema(value_type = String)]
    id: WebhookEndpointId,
    object: &'static str,
    deleted: bool,
}

/// Delete an endpoint. What it was still to be told is not told.
#[utoipa::path(
    delete,
    path = "/v1/webhook_endpoints/{id}",
    tag = "Webhooks",
    params(("id" = String, Path, description = "The endpoint's id, `we_…`.")),
    responses((status = 200, body = DeletedWebhookEndpoint, description = "The endpoint is gone."))
)]
pub async fn delete_webhook_endpoint(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<WebhookEndpointId>,
) -> Result<Json<DeletedWebhookEndpoint>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    if !webhooks::delete(&mut tx, id).await? {
        return Err(missing(id));
    }
    record(
        &mut tx,
        &tenant,
        "webhook_endpoint.deleted",
        id,
        state.clock.now(),
    )
    .await?;
    tx.commit().await?;
    Ok(Json(DeletedWebhookEndpoint {
        id,
        object: "webhook_endpoint.deleted",
        deleted: true,
    }))
}

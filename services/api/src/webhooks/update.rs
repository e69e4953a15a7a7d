//! `POST /v1/webhook_endpoints/{id}`.

use axum::Json;
use axum::extract::State;
use domain::WebhookEndpointId;
use store::webhooks::{self, Settings};

use super::settings::{Given, WebhookEndpointChange};
use super::{WebhookEndpoint, missing, record};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::{JsonBody, PathId};

/// Change an endpoint's name, URL or event types, and enable it if it was disabled. What is not named stays.
#[utoipa::path(
    post,
    path = "/v1/webhook_endpoints/{id}",
    tag = "Webhooks",
    params(("id" = String, Path, description = "The endpoint's id, `we_…`.")),
    request_body(content = WebhookEndpointChange),
    responses((status = 200, body = WebhookEndpoint, description = "The endpoint as it is now."))
)]
pub async fn update_webhook_endpoint(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<WebhookEndpointId>,
    JsonBody(body): JsonBody,
) -> Result<Json<WebhookEndpoint>, ApiError> {
    let given = Given::read(&body)?;
    given.check_url(&state.webhooks).await?;
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let old = webhooks::find(&mut tx, id)
        .await?
        .ok_or_else(|| missing(id))?;
    let settings = given.over(Settings {
        name: old.name,
        url: old.url,
        event_types: old.event_types,
    });
    let now = state.clock.now();
    let endpoint = webhooks::update(&mut tx, id, &settings, now).await?;
    let endpoint = endpoint.ok_or_else(|| missing(id))?;
    record(&mut tx, &tenant, "webhook_endpoint.updated", id, now).await?;
    tx.commit().await?;
    Ok(Json(endpoint.into()))
}

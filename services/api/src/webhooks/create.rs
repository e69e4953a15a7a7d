//! `POST /v1/webhook_endpoints`.

use axum::Json;
use axum::extract::State;
use store::webhooks::{self, MAX_ENDPOINTS};

use super::settings::{Given, NewWebhookEndpoint};
use super::signature::Secret;
use super::{WebhookEndpointWithSecret, keyring, record};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode};
use crate::extract::JsonBody;

/// Create an endpoint. Its signing secret is in this answer and in no other.
#[utoipa::path(
    post,
    path = "/v1/webhook_endpoints",
    tag = "Webhooks",
    request_body(content = NewWebhookEndpoint),
    responses((status = 200, body = WebhookEndpointWithSecret, description = "The endpoint and its secret."))
)]
pub async fn create_webhook_endpoint(
    State(state): State<AppState>,
    tenant: Tenant,
    JsonBody(body): JsonBody,
) -> Result<Json<WebhookEndpointWithSecret>, ApiError> {
    let keyring = keyring(&state)?;
    let settings = Given::read(&body)?.complete(&state.webhooks).await?;
    let secret = Secret::draw()?;
    let now = state.clock.now();
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let made = webhooks::create(&mut tx, keyring, &settings, secret.expose(), now).await?;
    let endpoint = made.ok_or_else(|| {
        let message =
            format!("A project has at most {MAX_ENDPOINTS} webhook endpoints; delete one first.");
        ApiError::invalid_request(message).code(ErrorCode::TooManyWebhookEndpoints)
    })?;
    record(
        &mut tx,
        &tenant,
        "webhook_endpoint.created",
        endpoint.id,
        now,
    )
    .await?;
    tx.commit().await?;
    Ok(Json(WebhookEndpointWithSecret {
        endpoint: endpoint.into(),
        signing_secret: secret.expose().to_owned(),
    }))
}

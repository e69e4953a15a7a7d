//! `POST /v1/webhook_endpoints/{id}/test`.

use axum::Json;
use axum::extract::State;
use domain::{WebhookDeliveryId, WebhookEndpointId, WebhookEventId};
use serde::Serialize;
use store::webhooks;
use utoipa::ToSchema;

use super::sender::Message;
use super::settings::{WebhookEventToTest, event_type};
use super::{keyring, missing};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode};
use crate::extract::{JsonBody, PathId};

/// What the receiver said.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookTest {
    object: &'static str,
    event_type: &'static str,
    /// The receiver's answer, whatever it is.
    status_code: u16,
    /// The receiver answered.
    success: bool,
    #[schema(value_type = String)]
    webhook_endpoint_id: WebhookEndpointId,
}

/// Send a sample event to an endpoint, now and once. Its object does not exist.
#[utoipa::path(
    post,
    path = "/v1/webhook_endpoints/{id}/test",
    tag = "Webhooks",
    params(("id" = String, Path, description = "The endpoint's id, `we_…`.")),
    request_body(content = WebhookEventToTest),
    responses((status = 200, body = WebhookTest, description = "The receiver answered."))
)]
pub async fn test_webhook_endpoint(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<WebhookEndpointId>,
    JsonBody(body): JsonBody,
) -> Result<Json<WebhookTest>, ApiError> {
    let keyring = keyring(&state)?;
    let now = state.clock.now();
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let endpoint = webhooks::find(&mut tx, id)
        .await?
        .ok_or_else(|| missing(id))?;
    let event_type = event_type(&body)?;
    let secrets = webhooks::secrets(&mut tx, keyring, id, now).await?;
    tx.commit().await?;
    let message = Message {
        id: WebhookDeliveryId::new().to_string(),
        event_id: WebhookEventId::new().to_string(),
        event_type: event_type.to_string(),
        object_id: format!("{}{}", event_type.object_prefix(), "0".repeat(32)),
        created_at: now.unix_timestamp(),
    };
    let sent = state
        .webhooks
        .send(&endpoint.url, &secrets, &message, now.unix_timestamp())
        .await;
    let status_code = sent.map_err(|error| {
        ApiError::invalid_request(format!("The test was not delivered: {error}."))
            .code(ErrorCode::WebhookNotDelivered)
    })?;
    Ok(Json(WebhookTest {
        object: "webhook_endpoint.test",
        event_type: event_type.as_str(),
        status_code,
        success: true,
        webhook_endpoint_id: id,
    }))
}

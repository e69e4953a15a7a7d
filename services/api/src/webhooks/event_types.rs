//! `GET /v1/webhook_event_types`.

use axum::Json;
use domain::WebhookEventType;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Tenant;

/// All types; this list has no pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEventTypes {
    object: &'static str,
    data: Vec<&'static str>,
}

/// List what an endpoint can be told of.
#[utoipa::path(
    get,
    path = "/v1/webhook_event_types",
    tag = "Webhooks",
    responses((status = 200, body = WebhookEventTypes, description = "Every event type."))
)]
pub async fn list_webhook_event_types(_: Tenant) -> Json<WebhookEventTypes> {
    Json(WebhookEventTypes {
        object: "list",
        data: WebhookEventType::ALL.map(WebhookEventType::as_str).to_vec(),
    })
}

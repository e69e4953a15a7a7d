//! `POST /v1/webhook_endpoints/{id}/rotate_secret`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use domain::WebhookEndpointId;
use serde_json::Value;
use store::webhooks;
use utoipa::ToSchema;

use super::signature::Secret;
use super::{WebhookEndpointWithSecret, keyring, missing, record};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::{JsonBody, PathId};

const KEEP: &str = "keep_old_secret_active_for_24_hours";
const KEPT_FOR: Duration = Duration::from_hours(24);

/// The body, as the documentation shows it.
#[derive(ToSchema)]
#[schema(as = WebhookSecretRotation)]
#[expect(dead_code, reason = "a body is read field by field")]
struct SecretRotation {
    /// False unless set: then the old secret is good for nothing from now on.
    keep_old_secret_active_for_24_hours: Option<bool>,
}

/// Give an endpoint a new signing secret. With `keep_old_secret_active_for_24_hours` deliveries carry a signature of
/// either for a day.
#[utoipa::path(
    post,
    path = "/v1/webhook_endpoints/{id}/rotate_secret",
    tag = "Webhooks",
    params(("id" = String, Path, description = "The endpoint's id, `we_…`.")),
    request_body(content = SecretRotation),
    responses((status = 200, body = WebhookEndpointWithSecret, description = "The endpoint and its new secret."))
)]
pub async fn rotate_webhook_secret(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<WebhookEndpointId>,
    JsonBody(body): JsonBody,
) -> Result<Json<WebhookEndpointWithSecret>, ApiError> {
    let keyring = keyring(&state)?;
    let now = state.clock.now();
    let old_until = keeps_old(&body)?.then(|| now + KEPT_FOR);
    let secret = Secret::draw()?;
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let endpoint =
        webhooks::rotate_secret(&mut tx, keyring, id, secret.expose(), old_until, now).await?;
    let endpoint = endpoint.ok_or_else(|| missing(id))?;
    record(&mut tx, &tenant, "webhook_endpoint.secret_rotated", id, now).await?;
    tx.commit().await?;
    Ok(Json(WebhookEndpointWithSecret {
        endpoint: endpoint.into(),
        signing_secret: secret.expose().to_owned(),
    }))
}

fn keeps_old(body: &Value) -> Result<bool, ApiError> {
    match &body[KEEP] {
        Value::Null => Ok(false),
        Value::Bool(keep) => Ok(*keep),
        _ => Err(ApiError::invalid(
            KEEP,
            format!("`{KEEP}` must be true or false."),
        )),
    }
}

//! `POST /v1/webhook_endpoints`.

use axum::extract::State;
use axum::response::Response;
use store::webhooks::{self, MAX_ENDPOINTS};

use super::settings::{Given, NewWebhookEndpoint};
use super::signature::Secret;
use super::{WebhookEndpointWithSecret, keyring, record};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode};
use crate::extract::JsonBody;
use crate::idempotency::{Once, OnceHeader, Opened};
use crate::openapi::ErrorBody;

/// Create an endpoint. Its signing secret is in this answer and in no other.
#[utoipa::path(
    post,
    path = "/v1/webhook_endpoints",
    tag = "Webhooks",
    params(OnceHeader),
    request_body(content = NewWebhookEndpoint),
    responses(
        (status = 200, body = WebhookEndpointWithSecret, description = "The endpoint and its secret."),
        (status = 409, body = ErrorBody, description = "The same request is being carried out right now (`x-should-retry: true`), or has made the endpoint that the message names (`already_made`, `x-should-retry: false`)."),
    )
)]
pub async fn create_webhook_endpoint(
    State(state): State<AppState>,
    tenant: Tenant,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let keyring = keyring(&state)?;
    let settings = Given::read(&body)?.complete(&state.webhooks).await?;
    let secret = Secret::draw()?;
    let now = state.clock.now();
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let once = match once.open(&mut tx, &body, now).await? {
        Opened::Answered(answer) => return Ok(answer),
        Opened::New(once) => once,
    };
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
    let again = ApiError::already_made(
        &format!("the webhook endpoint `{}`", endpoint.id),
        "give the endpoint another with `POST /v1/webhook_endpoints/{id}/rotate_secret`, or delete it",
    );
    let view = WebhookEndpointWithSecret {
        endpoint: endpoint.into(),
        signing_secret: secret.expose().to_owned(),
    };
    let answer = once.keep_without_secret(&mut tx, &view, again).await?;
    tx.commit().await?;
    Ok(answer)
}

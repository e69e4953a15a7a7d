//! The webhook endpoints: addresses that are told when a job or a batch ends, and what tells them.

pub mod create;
pub mod delete;
pub mod deliver;
pub mod event_types;
pub mod list;
pub mod retrieve;
pub mod rotate_secret;
mod sender;
mod settings;
mod signature;
pub mod test;
pub mod update;

use domain::WebhookEndpointId;
use serde::Serialize;
use store::TenantTx;
use store::audit::{self, Act};
use store::sealed::Keyring;
use store::webhooks::Endpoint;
use time::OffsetDateTime;
use utoipa::ToSchema;

pub use sender::Sender;

use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode, Thing};
use crate::extract::Identifies;

impl Identifies for WebhookEndpointId {
    const THING: Thing = Thing::WebhookEndpoint;
}

/// An endpoint as a client sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEndpoint {
    #[schema(value_type = String)]
    id: WebhookEndpointId,
    object: &'static str,
    name: String,
    url: String,
    event_types: Vec<&'static str>,
    created_at: i64,
    /// The last change of the settings or the secret.
    updated_at: i64,
    signing_secret_hint: String,
    attune: EndpointHealth,
}

/// How deliveries go.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookEndpointHealth)]
struct EndpointHealth {
    /// Since when nothing is delivered any more, because the receiver was away for days or said that it is gone. An
    /// update enables the endpoint again.
    #[schema(required)]
    disabled_at: Option<i64>,
    /// The first failure since the last success.
    #[schema(required)]
    failing_since: Option<i64>,
    /// What went wrong last.
    #[schema(required)]
    last_failure: Option<String>,
}

/// An endpoint with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEndpointWithSecret {
    #[serde(flatten)]
    endpoint: WebhookEndpoint,
    /// `whsec_…`.
    signing_secret: String,
}

impl From<Endpoint> for WebhookEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            id: endpoint.id,
            object: "webhook_endpoint",
            name: endpoint.name,
            url: endpoint.url,
            event_types: endpoint
                .event_types
                .into_iter()
                .map(domain::WebhookEventType::as_str)
                .collect(),
            created_at: endpoint.created_at.unix_timestamp(),
            updated_at: endpoint.configured_at.unix_timestamp(),
            signing_secret_hint: endpoint.secret_hint,
            attune: EndpointHealth {
                disabled_at: endpoint.disabled_at.map(OffsetDateTime::unix_timestamp),
                failing_since: endpoint.failing_since.map(OffsetDateTime::unix_timestamp),
                last_failure: endpoint.last_failure,
            },
        }
    }
}

fn missing(id: WebhookEndpointId) -> ApiError {
    ApiError::not_found(Thing::WebhookEndpoint, &id.to_string())
}

/// Writes a change of an endpoint into the audit log.
async fn record(
    tx: &mut TenantTx,
    tenant: &Tenant,
    action: &'static str,
    id: WebhookEndpointId,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let act = Act::new(action, "webhook_endpoint", id);
    Ok(audit::record(tx, &tenant.actor(), &act, now).await?)
}

/// What secrets are sealed with. Without it there are no webhooks.
fn keyring(state: &AppState) -> Result<&Keyring, ApiError> {
    state.keyring.as_ref().ok_or_else(|| {
        let message = "This installation has no key to seal signing secrets with, so it has no webhooks: its operator \
                       sets ATTUNE_SECRET_KEYS.";
        ApiError::invalid_request(message).code(ErrorCode::WebhooksNotConfigured)
    })
}

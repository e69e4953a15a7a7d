//! One POST to one receiver.

use axum::http::header::CONTENT_TYPE;
use serde_json::json;
use store::sealed::Plaintext;

use super::signature::sign;
use crate::outbound::target::{Lookup, Policy, TargetError};
use crate::outbound::{self, Outbound, OutboundError};

/// What a receiver is told.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) event_id: String,
    pub(super) event_type: String,
    pub(super) object_id: String,
    pub(super) created_at: i64,
}

impl Message {
    fn body(&self) -> String {
        json!({
            "id": self.event_id,
            "object": "event",
            "created_at": self.created_at,
            "type": self.event_type,
            "data": {"id": self.object_id},
        })
        .to_string()
    }
}

/// Why a message was not sent, in words for the tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the signing secret cannot be used; rotate it")]
    Secret,
}

/// The way to webhooks' receivers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender(Outbound);

impl Sender {
    /// A sender under the operator's policy.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(policy: Policy, lookup: Lookup) -> reqwest::Result<Self> {
        Outbound::new(policy, lookup).map(Self)
    }

    /// Whether webhooks may go there as things are now.
    pub(super) async fn check(&self, url: &str) -> Result<(), TargetError> {
        self.0.check(url).await
    }

    /// Sends a message, signed at `timestamp`, and says with which status it was answered.
    pub(super) async fn send(
        &self,
        url: &str,
        secrets: &[Plaintext],
        message: &Message,
        timestamp: i64,
    ) -> Result<u16, SendError> {
        let request = self.0.post(url).map_err(OutboundError::from)?;
        let body = message.body();
        let secrets: Result<Vec<&str>, _> = secrets.iter().map(Plaintext::expose_text).collect();
        let secrets = secrets.map_err(|_| SendError::Secret)?;
        let signature = sign(secrets, &message.id, timestamp, &body).ok_or(SendError::Secret)?;
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        Ok(outbound::send(request).await?.status)
    }
}

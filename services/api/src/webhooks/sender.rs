//! One POST to one receiver.

use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use futures::StreamExt as _;
use reqwest::redirect;
use serde_json::json;
use store::sealed::Plaintext;

use super::signature::sign;
use super::target::{Lookup, Policy, PublicOnly, TargetError};

/// The whole of it: name, connection, request, answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is read so far, so that a connection ends cleanly, and no further.
const MAX_ANSWER_BYTES: usize = 16 << 10;

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

/// A receiver that was not reached. In words for the tenant: nothing of our network is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    #[error("the URL {0}")]
    Target(#[from] TargetError),
    #[error("the receiver did not answer within 10 seconds")]
    TimedOut,
    #[error("the receiver could not be connected to")]
    NotConnected,
    #[error("the connection broke before the receiver answered")]
    Broken,
    #[error("the signing secret cannot be used; rotate it")]
    Secret,
}

/// The way out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    http: reqwest::Client,
    targets: PublicOnly,
}

impl Sender {
    /// A sender under the operator's policy.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(policy: Policy, lookup: Lookup) -> reqwest::Result<Self> {
        let targets = PublicOnly { policy, lookup };
        let http = reqwest::Client::builder()
            // A proxy of the environment would look the name up again, by itself.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .dns_resolver(targets.clone())
            // Every delivery is checked anew, so none rides on a connection that was made before.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("attune/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, targets })
    }

    /// Whether webhooks may go there as things are now.
    pub(super) async fn check(&self, url: &str) -> Result<(), TargetError> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.targets.check(url))
            .await
            .unwrap_or(Err(TargetError::UnknownHost))
            .map(drop)
    }

    /// Sends a message, signed at `timestamp`, and says with which status it was answered.
    pub(super) async fn send(
        &self,
        url: &str,
        secrets: &[Plaintext],
        message: &Message,
        timestamp: i64,
    ) -> Result<u16, SendError> {
        let url = self.targets.parse(url)?;
        let body = message.body();
        let secrets: Result<Vec<&str>, _> = secrets.iter().map(Plaintext::expose_text).collect();
        let secrets = secrets.map_err(|_| SendError::Secret)?;
        let signature = sign(secrets, &message.id, timestamp, &body).ok_or(SendError::Secret)?;
        let answer = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body)
            .send()
            .await
            .map_err(|error| sorted(&error))?;
        let status = answer.status().as_u16();
        let (mut stream, mut n_bytes) = (answer.bytes_stream(), 0);
        while let Some(Ok(chunk)) = stream.next().await {
            n_bytes += chunk.len();
            if n_bytes > MAX_ANSWER_BYTES {
                break;
            }
        }
        Ok(status)
    }
}

/// What the tenant may know of it. A name whose addresses are not allowed fails inside the client's connector.
fn sorted(error: &reqwest::Error) -> SendError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<TargetError>() {
            return refused.clone().into();
        }
        cause = inner.source();
    }
    if error.is_timeout() {
        SendError::TimedOut
    } else if error.is_connect() {
        SendError::NotConnected
    } else {
        SendError::Broken
    }
}

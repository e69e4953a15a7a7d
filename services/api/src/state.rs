//! What every handler shares.

use buckets::Buckets;
use domain::Clock;
use domain::limits::{
    DEFAULT_MAX_FILE_BYTES, DEFAULT_MAX_UPLOAD_BYTES, MAX_BATCH_BYTES, MAX_PART_BYTES,
};
use store::Store;
use store::api_keys::Pepper;
use store::sealed::Keyring;

use crate::auth::Callers;
use crate::auth::oidc::Oidc;
use crate::chat::InferenceClient;
use crate::feed::Feed;
use crate::text_models::TextModels;
use crate::throttle::Throttle;
use crate::webhooks;

/// Handles to everything a handler may need. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// Postgres.
    pub store: Store,
    /// Where objects are.
    pub buckets: Buckets,
    /// The time.
    pub clock: Clock,
    /// What API keys are hashed with.
    pub pepper: Pepper,
    /// What tenants' secrets are sealed with, if the operator gave a key.
    pub keyring: Option<Keyring>,
    /// The identity provider whose tokens are believed, beside API keys.
    pub oidc: Option<Oidc>,
    /// The way to the inference service.
    pub inference: InferenceClient,
    /// Requests and tokens per minute, of projects that have a limit.
    pub throttle: Throttle,
    /// Whether requests come through a proxy that says truly whom it speaks for.
    pub trusts_proxy: bool,
    /// The textual halves of base models.
    pub texts: TextModels,
    /// Which jobs have news, for streams of events.
    pub feed: Feed,
    /// Who listens to them, and may do so still.
    pub callers: Callers,
    /// The way to webhooks' receivers.
    pub webhooks: webhooks::Sender,
    /// What an operator may bound.
    pub limits: Limits,
}

/// Bounds of what is sent. The operator sets those of files; the others are OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest file a tenant may send in one request.
    pub max_file_bytes: u64,
    /// The largest file a tenant may send in parts.
    pub max_upload_bytes: u64,
    /// The largest part of an upload.
    pub max_part_bytes: u64,
    /// The largest input of a batch.
    pub max_batch_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: DEFAULT_MAX_FILE_BYTES,
            max_upload_bytes: DEFAULT_MAX_UPLOAD_BYTES,
            max_part_bytes: MAX_PART_BYTES,
            max_batch_bytes: MAX_BATCH_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unless_the_operator_says_otherwise_as_much_may_be_sent_as_to_openai() {
        let limits = Limits::default();
        assert_eq!(limits.max_file_bytes, 512 << 20);
        assert_eq!(limits.max_upload_bytes, 8 << 30);
        assert_eq!(limits.max_part_bytes, 64 << 20);
        assert_eq!(limits.max_batch_bytes, 200 << 20);
    }
}

//! What every handler shares.

use buckets::Buckets;
use domain::Clock;
use domain::limits::DEFAULT_MAX_FILE_BYTES;
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

/// Bounds that the operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest file a tenant may upload.
    pub max_file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: DEFAULT_MAX_FILE_BYTES,
        }
    }
}

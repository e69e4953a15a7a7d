//! The routes, all of them, and what they share.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use buckets::Buckets;
use domain::Clock;
use lm::Device;
use store::Store;

use crate::cache::ModelCache;
use crate::caller::InternalToken;
use crate::chat::chat_completions;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::ChatError;
use crate::export::{Exports, export_model};
use crate::request_id::{self, RequestId};

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct AppState {
    /// Postgres.
    pub(crate) store: Store,
    /// S3.
    pub(crate) buckets: Buckets,
    /// Models in memory.
    pub(crate) cache: Arc<ModelCache>,
    /// Turns to generate.
    pub(crate) engine: Engine,
    /// Models that are written as files.
    pub(crate) exports: Exports,
    /// The time.
    pub(crate) clock: Clock,
    /// What callers must show.
    pub(crate) internal_token: InternalToken,
}

impl AppState {
    /// Connects to everything. Postgres and S3 may still be down; the device must be there.
    ///
    /// # Errors
    ///
    /// The device is not there, or a setting cannot be used.
    pub(crate) fn new(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let device = Device::parse(&config.device).context("choosing the device")?;
        tracing::info!(
            device = device.describe(),
            "Inference runs on {}",
            device.describe()
        );
        let store = Store::connect_lazy(&config.database_url).context("reading DATABASE_URL")?;
        let buckets = Buckets::new(&config.s3, config.keyring.clone());
        let dir = config.cache_dir.clone();
        let cache = ModelCache::new(
            (store.clone(), buckets.clone()),
            dir,
            device,
            &config.limits,
        );
        Ok(Self {
            store,
            buckets,
            cache: Arc::new(cache),
            engine: Engine::new(&config.limits),
            exports: Exports::new(config.cache_dir.clone()),
            clock,
            internal_token: InternalToken::new(&config.internal_token),
        })
    }
}

/// All routes.
pub(crate) fn router(state: AppState, max_body_bytes: usize) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/internal/export", post(export_model))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(middleware::from_fn(request_id::attach))
        .with_state(state)
}

/// Whether Postgres and S3 can be reached. Models are loaded when first asked for, so they do not count.
async fn readyz(State(state): State<AppState>) -> Response {
    let (postgres, s3) = tokio::join!(state.store.ready(), state.buckets.shared().ready());
    let mut missing = Vec::new();
    if let Err(error) = postgres {
        missing.push("Postgres");
        tracing::warn!("Not ready: {:#}", anyhow::Error::new(error));
    }
    if let Err(error) = s3 {
        missing.push("S3");
        tracing::warn!("Not ready: {:#}", anyhow::Error::new(error));
    }
    if missing.is_empty() {
        return "ok".into_response();
    }
    let reason = format!("cannot reach {}", missing.join(" and "));
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

async fn prometheus() -> Response {
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (content_type, crate::metrics::render()).into_response()
}

async fn no_route(Extension(request_id): Extension<RequestId>) -> Response {
    ChatError::NoRoute.respond(request_id.as_str())
}

async fn method_not_allowed(Extension(request_id): Extension<RequestId>) -> Response {
    ChatError::MethodNotAllowed.respond(request_id.as_str())
}

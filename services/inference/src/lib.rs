//! The inference service: chat completions over base models and a thousand adapters.
//!
//! It speaks HTTP to the API only, which has authenticated the client and names its project. The service itself looks
//! every model up in that project's own transaction, at every call. Deliberately absent: API keys, rate limits, and any
//! state that another replica would need.

mod cache;
mod caller;
mod chat;
mod config;
mod engine;
mod error;
mod export;
mod metrics;
mod random;
mod request;
mod request_id;
mod resolve;
mod response;
mod server;
mod sse;

use std::time::Duration;

use anyhow::Context;
use axum::serve::ListenerExt;
use domain::Clock;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use caller::PROJECT_HEADER;
pub use config::{Config, Limits};

/// How long answers under way may take once the service is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long generation may take to notice that its time is up: one token.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves until `shutdown`, then lets answers under way finish for a while.
///
/// # Errors
///
/// The device is not there, a setting cannot be used, or the listener fails.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    metrics::install();
    let state = server::AppState::new(&config, Clock::system())?;
    let engine = state.engine.clone();
    let router = server::router(state, config.limits.max_body_bytes);
    // Tokens are small; without this each would wait for the last one's acknowledgement.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let (stopping, stopped) = oneshot::channel();
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = stopping.send(());
    });
    let patience_ends = async move {
        if stopped.await.is_ok() {
            tokio::time::sleep(GRACE).await;
            engine.stop();
            tokio::time::sleep(LAST_WORDS).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = served.into_future() => served.context("serving"),
        () = patience_ends => {
            tracing::warn!("Answers still under way were cut off");
            Ok(())
        }
    }
}

//! From settings to a running server, and to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use artifacts::ObjectStore;
use axum::serve::ListenerExt as _;
use domain::Clock;
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::auth::oidc::Oidc;
use crate::chat::InferenceClient;
use crate::state::{AppState, Limits};
use crate::sweeper::Sweeper;
use crate::throttle::Throttle;
use crate::{Config, router};

/// How long requests under way may take once the server is told to stop. A stream of tokens that takes longer
/// is cut.
const GRACE: Duration = Duration::from_secs(20);

/// Serves until `shutdown` resolves, then lets requests under way finish for up to 20 seconds.
///
/// Starts while Postgres, S3 or the inference service are still down; requests are 503 until they are up.
///
/// # Errors
/// Settings that cannot be used, or a listener that fails.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let state = state(&config)?;
    let stop = CancellationToken::new();
    let sweeper = start_sweeper(&config, &state, stop.clone())?;
    let signal = {
        let stop = stop.clone();
        async move {
            shutdown.await;
            stop.cancel();
        }
    };
    // Tokens are sent one by one; each would otherwise wait for the peer's delayed acknowledgement.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let service = router(state.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service)
        .with_graceful_shutdown(signal)
        .into_future();
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let result = tokio::select! {
        ended = serving => ended.context("the server ended"),
        () = overdue => {
            tracing::warn!("Closed connections that were still busy");
            Ok(())
        }
    };
    stop.cancel();
    if let Some(sweeper) = sweeper {
        sweeper.await.context("the sweeper panicked")?;
    }
    state.store.close().await;
    result
}

fn state(config: &Config) -> anyhow::Result<AppState> {
    Ok(AppState {
        store: Store::connect_lazy(&config.database_url).context("DATABASE_URL cannot be used")?,
        objects: ObjectStore::connect(&config.s3),
        clock: Clock::system(),
        pepper: config.key_pepper.clone(),
        keyring: config.keyring.clone(),
        oidc: config
            .oidc
            .clone()
            .map(Oidc::new)
            .transpose()
            .context("the client of the identity provider could not be set up")?,
        inference: InferenceClient::new(&config.inference_url, config.internal_token.clone())
            .context("the client of the inference service could not be set up")?,
        throttle: Throttle::new(Clock::system(), config.replicas),
        trusts_proxy: config.trusts_proxy,
        limits: Limits {
            max_file_bytes: config.max_file_bytes,
        },
    })
}

fn start_sweeper(
    config: &Config,
    state: &AppState,
    stop: CancellationToken,
) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
    let Some(url) = &config.sweep_database_url else {
        return Ok(None);
    };
    let store = Store::connect_lazy(url).context("ATTUNE_SWEEP_DATABASE_URL cannot be used")?;
    let sweeper = Sweeper::new(store, state.objects.clone(), state.clock.clone());
    Ok(Some(tokio::spawn(async move {
        sweeper.run(stop.cancelled_owned()).await;
    })))
}

//! From settings to a running server, and to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use buckets::Buckets;
use domain::Clock;
use store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::Callers;
use crate::auth::oidc::Oidc;
use crate::batches::{Pace, Runner};
use crate::chat::InferenceClient;
use crate::feed::Feed;
use crate::outbound::target::Lookup;
use crate::state::{AppState, Limits};
use crate::stranded::Teller;
use crate::sweeper::Sweeper;
use crate::text_models::TextModels;
use crate::throttle::Throttle;
use crate::wandb::Reporter;
use crate::webhooks::deliver::Deliverer;
use crate::{Config, router, telemetry, wandb, webhooks};

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
    let mut loops = start_loops(&config, &state, &stop)?;
    loops.push(tokio::spawn(telemetry::keep_up(stop.clone())));
    let signal = {
        let stop = stop.clone();
        let feed = state.feed.clone();
        async move {
            shutdown.await;
            // A stream of events has no end of its own that one could wait for.
            feed.close();
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
    for each in loops {
        each.await.context("a background loop panicked")?;
    }
    state.store.close().await;
    result
}

fn state(config: &Config) -> anyhow::Result<AppState> {
    let store = Store::connect_lazy(&config.database_url).context("DATABASE_URL cannot be used")?;
    let buckets = Buckets::new(&config.s3, config.keyring.clone());
    Ok(AppState {
        feed: Feed::new(store.clone()),
        callers: Callers::new(store.clone(), Clock::system()),
        texts: TextModels::new(buckets.shared().clone()),
        store,
        buckets,
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
        webhooks: webhooks::Sender::new(config.webhook_targets, Lookup::system())
            .context("the client of webhooks could not be set up")?,
        throttle: Throttle::new(Clock::system(), config.replicas),
        trusts_proxy: config.trusts_proxy,
        limits: Limits {
            max_file_bytes: config.max_file_bytes,
            max_upload_bytes: config.max_upload_bytes,
            ..Limits::default()
        },
    })
}

/// The sweeper and the loops that answer batches, tell jobs that wait in vain, deliver webhooks and report to Weights &
/// Biases: they see every project, which this service's own login may not.
fn start_loops(
    config: &Config,
    state: &AppState,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let Some(url) = &config.sweep_database_url else {
        return Ok(Vec::new());
    };
    let store = Store::connect_lazy(url).context("ATTUNE_SWEEP_DATABASE_URL cannot be used")?;
    let (buckets, clock) = (state.buckets.clone(), state.clock.clone());
    let sweeper = Sweeper::new(store.clone(), buckets.clone(), clock.clone());
    let batches = Runner::new(
        store.clone(),
        buckets,
        clock.clone(),
        state.inference.clone(),
        state.throttle.clone(),
        Pace::default(),
    );
    let mut loops = vec![
        tokio::spawn(sweeper.run(stop.clone().cancelled_owned())),
        tokio::spawn(batches.run(stop.clone())),
        tokio::spawn(Teller::new(store.clone()).run(stop.clone().cancelled_owned())),
    ];
    // Without the keys that secrets are sealed with there is no endpoint that could be told, and no account to report with.
    if let Some(keyring) = config.keyring.clone() {
        let webhooks = state.webhooks.clone();
        let deliverer = Deliverer::new(store.clone(), keyring.clone(), webhooks, clock.clone());
        loops.push(tokio::spawn(deliverer.run(stop.clone().cancelled_owned())));
        let client = wandb::Client::new(config.wandb_targets, Lookup::system())
            .context("the client of Weights & Biases could not be set up")?;
        let reporter = Reporter::new(store, keyring, client, clock);
        loops.push(tokio::spawn(reporter.run(stop.clone().cancelled_owned())));
    }
    Ok(loops)
}

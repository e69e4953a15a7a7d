//! SIGTERM and SIGINT, turned into a wish to stop that any number of tasks can wait for.

use std::future::Future;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Told when the process is asked to stop.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
}

impl Shutdown {
    /// Starts to listen. From now on the signals no longer end the process by themselves.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn listen() -> Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let (sender, requested) = watch::channel(false);
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!("Received {name}, stopping");
            let _ = sender.send(true);
            // Kept open: without a sender, waiting would end as well, but for another reason.
            sender.closed().await;
        });
        Ok(Self { requested })
    }

    /// Resolves when the process is asked to stop, at once if it was already.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut requested = self.requested.clone();
        async move {
            let _ = requested.wait_for(|requested| *requested).await;
        }
    }
}

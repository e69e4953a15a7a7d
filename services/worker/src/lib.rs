//! The worker: claims a job, trains it, publishes the model. Holds no state that a crash could lose.
//!
//! One worker runs one job at a time, because one job takes the whole device. More jobs at once means more workers.
//!
//! - [`run`] is the loop: claim, attempt, report.
//! - `attempt` is one claimed job from its files to its model.
//! - `heart` keeps the lease; `report` moves what the training thread says to Postgres and S3.

mod attempt;
mod config;
mod failure;
mod findings;
mod heart;
mod inputs;
mod observe;
mod publish;
mod report;
mod resume;
mod scratch;

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use artifacts::ObjectStore;
use domain::Clock;
use domain::failure::error_chain;
use lm::device::Device;
use store::{Store, queue};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use config::Config;

use crate::inputs::Bases;

/// How long an idle worker waits before it looks again.
const POLL: Duration = Duration::from_secs(1);
/// Expired leases that are put back at a time.
const REAPED_AT_ONCE: u32 = 100;

/// Everything an attempt needs from the worker.
struct Worker {
    config: Config,
    store: Store,
    objects: ObjectStore,
    device: Device,
    clock: Clock,
    bases: Bases,
    /// Cancelled when the worker is asked to go.
    leaving: CancellationToken,
}

/// Claims and runs jobs until `shutdown` resolves; a running job then writes a checkpoint and goes back to the queue.
///
/// # Errors
/// Only what no retry can mend: settings that cannot work. Storage that is away is waited for.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let device = Device::parse(&config.device).context("ATTUNE_DEVICE")?;
    let store = Store::connect_lazy(&config.database_url).context("DATABASE_URL")?;
    let objects = ObjectStore::connect(&config.s3);
    info!(worker.name = %config.name, "Worker `{}` trains on {}", config.name, device.describe());
    scratch::sweep(&config.attempts_dir());
    let bases = Bases::new(config.cache_dir.join("bases"));
    let leaving = CancellationToken::new();
    tokio::spawn({
        let leaving = leaving.clone();
        async move {
            shutdown.await;
            leaving.cancel();
        }
    });
    let clock = Clock::system();
    let mut worker = Worker {
        config,
        store,
        objects,
        device,
        clock,
        bases,
        leaving,
    };
    worker.work().await;
    info!("Worker `{}` has stopped", worker.config.name);
    Ok(())
}

impl Worker {
    async fn work(&mut self) {
        while !self.leaving.is_cancelled() {
            if !self.run_one().await {
                let leaving = self.leaving.clone();
                let _ = tokio::time::timeout(POLL, leaving.cancelled()).await;
            }
        }
    }

    async fn run_one(&mut self) -> bool {
        let claimed = match self.claim().await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return false,
            Err(error) => {
                warn!(
                    "Cannot reach the queue, trying again: {}",
                    error_chain(&error)
                );
                return false;
            }
        };
        let job_id = claimed.job.id;
        info!(job.id = %job_id, job.attempt = claimed.lease.attempt, "Claimed job `{job_id}`");
        // The attempt's future is large; boxed, it does not grow every caller's.
        Box::pin(attempt::run(self, claimed)).await;
        true
    }

    async fn claim(&self) -> Result<Option<queue::Claimed>, store::StoreError> {
        let mut tx = self.store.worker_tx().await?;
        for reaped in queue::reap(&mut tx, REAPED_AT_ONCE).await? {
            warn!(
                job.id = %reaped.job_id, job.attempt = reaped.attempt,
                "The worker of job `{}` is gone; the job was {}",
                reaped.job_id, if reaped.failed { "failed" } else { "put back" },
            );
        }
        let claimed = queue::claim(&mut tx, &self.config.name, self.config.lease()).await?;
        tx.commit().await?;
        Ok(claimed)
    }
}

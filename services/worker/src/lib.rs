//! The worker: claims a job, trains it, publishes the model. Holds no state that a crash could lose.
//!
//! One worker runs one job at a time, because one job takes the whole device. More jobs at once means more workers.
//!
//! - [`run`] is the loop: claim, attempt, report.
//! - `attempt` is one claimed job from its files to its model.
//! - `presence` says that this worker is there, and hears that there is something to do.
//! - `heart` keeps the lease; `report` moves what the training thread says to Postgres and S3, objects through `upload`.

mod attempt;
mod config;
mod failure;
mod findings;
mod heart;
mod inputs;
mod observe;
mod presence;
mod publish;
mod report;
mod resume;
mod scratch;
mod start;
mod upload;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use buckets::Buckets;
use domain::failure::error_chain;
use domain::{Clock, WorkerKind};
use lm::device::Device;
use store::{Lease, Store, StoreError, lease, queue};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use config::Config;

use crate::inputs::Bases;
use crate::presence::Presence;

/// Expired leases that are put back at a time.
const REAPED_AT_ONCE: u32 = 100;
/// The longest that a worker waits for the database when it hands a job back after its grace period.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(2);

/// Everything an attempt needs from the worker.
struct Worker {
    config: Config,
    store: Store,
    buckets: Buckets,
    device: Device,
    clock: Clock,
    bases: Bases,
    kind: WorkerKind,
    presence: Presence,
    /// What is being worked on.
    held: Held,
    /// Cancelled when the worker is asked to go.
    leaving: CancellationToken,
}

/// The lease of the job that is being worked on.
type Held = Arc<Mutex<Option<Lease>>>;

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
    let buckets = Buckets::new(&config.s3, config.keyring.clone());
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
    let kind = WorkerKind {
        device: training::settings::device_kind(&device),
        memory_bytes: config.memory_bytes,
    };
    let presence = Presence::start(store.clone(), &config.name, kind);
    let clock = Clock::system();
    let mut worker = Worker {
        config,
        store,
        buckets,
        device,
        clock,
        bases,
        kind,
        presence,
        held: Held::default(),
        leaving,
    };
    worker.work_until_asked_to_go().await;
    worker.presence.end().await;
    info!("Worker `{}` has stopped", worker.config.name);
    Ok(())
}

impl Worker {
    /// Works, and once it is asked to go, ends what it is at within the grace period: with a checkpoint if there is time
    /// for one, otherwise from the last.
    async fn work_until_asked_to_go(&mut self) {
        let (store, held) = (self.store.clone(), self.held.clone());
        let (leaving, grace) = (self.leaving.clone(), self.config.grace());
        let overdue = async move {
            leaving.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            () = self.work() => return,
            () = overdue => {}
        }
        let lease = held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lease) = lease {
            warn!(job.id = %lease.job_id, "The grace period is over; `{}` goes on from its last checkpoint", lease.job_id);
            let handed_back = tokio::time::timeout(HAND_BACK_WITHIN, hand_back(&store, &lease));
            let fault = match handed_back.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error_chain(&error),
                Err(_) => "the database does not answer".to_owned(),
            };
            warn!(job.id = %lease.job_id, "Its lease has to run out: {fault}");
        }
    }

    async fn work(&mut self) {
        while !self.leaving.is_cancelled() {
            if !self.run_one().await {
                let (leaving, poll) = (self.leaving.clone(), self.config.poll());
                tokio::select! {
                    () = leaving.cancelled() => {}
                    () = self.presence.woken() => {}
                    () = tokio::time::sleep(poll) => {}
                }
            }
        }
    }

    fn hold(&self, lease: Option<Lease>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = lease;
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
        self.hold(Some(claimed.lease.clone()));
        // The attempt's future is large; boxed, it does not grow every caller's.
        Box::pin(attempt::run(self, claimed)).await;
        self.hold(None);
        true
    }

    async fn claim(&self) -> Result<Option<queue::Claimed>, StoreError> {
        let mut tx = self.store.worker_tx().await?;
        let reaped = queue::reap(&mut tx, REAPED_AT_ONCE).await?;
        tx.commit().await?;
        for reaped in reaped {
            warn!(
                job.id = %reaped.job_id, job.attempt = reaped.attempt,
                "The worker of job `{}` is gone; the job was {}",
                reaped.job_id, if reaped.failed { "failed" } else { "put back" },
            );
        }
        let mut tx = self.store.worker_tx().await?;
        let lease_for = self.config.lease();
        let claimed = queue::claim(&mut tx, &self.config.name, self.kind, lease_for).await?;
        tx.commit().await?;
        Ok(claimed)
    }
}

async fn hand_back(store: &Store, lease: &Lease) -> Result<(), StoreError> {
    let mut tx = store.tenant_tx(lease.project_id).await?;
    lease::release(&mut tx, lease, Duration::ZERO).await?;
    tx.commit().await
}

//! Keeps a job's lease while it is worked on, and tells the training thread when the tenant or the operator wants it to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use store::queue::Wish;
use store::{Lease, Store, StoreError, queue};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use training::Next;

/// How often is looked whether the job was cancelled or paused: both are noticed within two seconds.
const LOOK: Duration = Duration::from_secs(1);

/// What the training thread should do after the micro-batch it is at. It only ever gets more urgent.
#[derive(Debug, Default)]
pub(crate) struct Signal(AtomicU8);

impl Signal {
    const LEAVE: u8 = 1;
    const LOST: u8 = 2;

    /// The worker is asked to go, or the tenant paused the job: write a checkpoint, then stop.
    pub(crate) fn leave(&self) {
        self.0.fetch_max(Self::LEAVE, Ordering::Relaxed);
    }

    /// The job is no longer ours: stop and write nothing.
    pub(crate) fn lose(&self) {
        self.0.fetch_max(Self::LOST, Ordering::Relaxed);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::LOST
    }

    pub(crate) fn next(&self) -> Next {
        match self.0.load(Ordering::Relaxed) {
            Self::LOST => Next::Abandon,
            Self::LEAVE => Next::SaveAndStop,
            _ => Next::Continue,
        }
    }
}

/// A beating heart. It stops when it is dropped.
pub(crate) struct Heart(JoinHandle<()>);

impl Heart {
    /// Until dropped, renews `lease` three times in its length and looks every second what the tenant wants.
    pub(crate) fn start(
        store: Store,
        lease: Lease,
        lease_for: Duration,
        signal: Arc<Signal>,
        leaving: CancellationToken,
    ) -> Self {
        Self(tokio::spawn(async move {
            let mut last_beat = Instant::now();
            loop {
                tokio::select! {
                    () = leaving.cancelled(), if signal.next() == Next::Continue => {
                        info!(job.id = %lease.job_id, "Leaving after this micro-batch of `{}`", lease.job_id);
                        signal.leave();
                        continue;
                    }
                    () = tokio::time::sleep(LOOK.min(lease_for / 3)) => {}
                }
                let beats = last_beat.elapsed() >= lease_for / 3;
                match look(&store, &lease, beats.then_some(lease_for)).await {
                    Ok(wish) => {
                        if beats {
                            last_beat = Instant::now();
                        }
                        if wish == Wish::Pause && signal.next() == Next::Continue {
                            info!(job.id = %lease.job_id, "Pausing after this micro-batch of `{}`", lease.job_id);
                            signal.leave();
                        }
                    }
                    Err(StoreError::LeaseLost) => {
                        info!(job.id = %lease.job_id, "Job `{}` is no longer ours", lease.job_id);
                        signal.lose();
                        return;
                    }
                    // The lease may run out meanwhile; then the next beat that gets through says so.
                    Err(error) => warn!(
                        job.id = %lease.job_id,
                        "No heartbeat for `{}`: {}", lease.job_id, domain::failure::error_chain(&error)
                    ),
                }
            }
        }))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the tenant wants; with `extend_for`, the lease is extended too.
async fn look(
    store: &Store,
    lease: &Lease,
    extend_for: Option<Duration>,
) -> Result<Wish, StoreError> {
    let mut tx = store.worker_tx().await?;
    let wish = match extend_for {
        Some(lease_for) => queue::heartbeat(&mut tx, lease, lease_for).await?,
        None => queue::wish(&mut tx, lease).await?,
    };
    tx.commit().await?;
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_lease_outranks_leaving() {
        let signal = Signal::default();
        assert_eq!(signal.next(), Next::Continue);
        signal.lose();
        signal.leave();
        assert_eq!(signal.next(), Next::Abandon);
    }
}

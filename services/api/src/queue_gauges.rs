//! How the queue does, as gauges without a tenant. Every API process that looks exports the same.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use store::{StoreError, WorkerTx, queue, stranded, watch};

/// Of which ends are counted.
const WINDOW: Duration = Duration::from_mins(10);

/// The status and the failure's code.
type End = (String, String);

/// What has been exported.
#[derive(Clone, Default)]
pub(crate) struct QueueGauges {
    /// An end that nobody came to for a while falls to 0.
    ends: Arc<Mutex<BTreeSet<End>>>,
}

impl QueueGauges {
    /// Reads how the queue does, and exports it.
    pub(crate) async fn export(&self, tx: &mut WorkerTx) -> Result<(), StoreError> {
        let depth = queue::depth(tx).await?;
        gauge!("attune_jobs_waiting").set(count(depth.waiting));
        gauge!("attune_jobs_leased").set(count(depth.leased));
        gauge!("attune_jobs_stranded").set(count(stranded::count(tx).await?));
        gauge!("attune_jobs_lost").set(count(watch::lost_leases(tx).await?));
        let wait = watch::longest_wait(tx).await?;
        gauge!("attune_jobs_longest_wait_seconds").set(wait.as_secs_f64());
        self.export_ends(watch::ended(tx, WINDOW).await?);
        Ok(())
    }

    fn export_ends(&self, ended: Vec<watch::Ended>) {
        let mut gone = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there = BTreeSet::new();
        for watch::Ended { status, code, n } in ended {
            set_end((&status, &code), count(n));
            gone.remove(&(status.clone(), code.clone()));
            there.insert((status, code));
        }
        for (status, code) in gone.iter() {
            set_end((status, code), 0.0);
        }
        *gone = there;
    }
}

fn set_end((status, code): (&str, &str), n: f64) {
    let (status, code) = (status.to_owned(), code.to_owned());
    gauge!("attune_jobs_ended", "status" => status, "code" => code).set(n);
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(n: u64) -> f64 {
    n as f64
}

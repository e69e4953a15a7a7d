//! Tells jobs that no worker can take that they wait in vain, and when that is over; and tells the operator's alarms how
//! the queue does.
//!
//! One loop in every API process; they take different rows. It sees every project, so like sweeping it needs a login that
//! may (the worker's).

use std::future::Future;
use std::time::Duration;

use domain::failure::error_chain;
use store::{Store, StoreError, stranded};

use crate::queue_gauges::QueueGauges;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(20);
/// Jobs told in one transaction.
const BATCH: u32 = 200;
/// Transactions of one look. What is left is told at the next.
const BATCHES: usize = 25;

/// Whom one look told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Jobs that have come to wait in vain.
    pub stranded: u64,
    /// Jobs that waited in vain until now.
    pub found: u64,
}

/// The teller of one process.
#[derive(Clone)]
pub struct Teller {
    store: Store,
    gauges: QueueGauges,
}

impl Teller {
    /// `store` must have a login that may take on the worker's role.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            gauges: QueueGauges::default(),
        }
    }

    /// Looks every few seconds until `shutdown` resolves. Failures are logged, not returned: what was not told is told the
    /// next time.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                looked = self.look() => {
                    if let Err(error) = looked {
                        tracing::warn!("Could not look for jobs that wait in vain: {}", error_chain(&error));
                    }
                }
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Tells every job about which something has changed.
    ///
    /// # Errors
    /// The database failed.
    pub async fn look(&self) -> Result<Told, StoreError> {
        let mut told = Told::default();
        for _ in 0..BATCHES {
            let mut tx = self.store.worker_tx().await?;
            let found = stranded::tell_found(&mut tx, BATCH).await?;
            let stranded = stranded::tell_stranded(&mut tx, BATCH).await?;
            tx.commit().await?;
            told.found += found;
            told.stranded += stranded;
            if found.max(stranded) < u64::from(BATCH) {
                break;
            }
        }
        let mut tx = self.store.worker_tx().await?;
        self.gauges.export(&mut tx).await?;
        tx.commit().await?;
        if told != Told::default() {
            tracing::info!(
                "Told {} jobs that no worker can take them, and {} that one can",
                told.stranded,
                told.found
            );
        }
        Ok(told)
    }
}

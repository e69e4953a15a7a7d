//! Takes away what nobody needs any more: objects of deleted rows, expired files, and orphans.
//!
//! An orphan is an object that no row names: an upload or a checkpoint whose process died between storing the
//! object and writing the row. Sweeping sees every project, so it needs a login that may (the worker's); the
//! service's own may not.
//!
//! A project's own bucket that fails holds up that project's deletions and nobody else's: they stay for the next sweep.

mod deletions;
mod orphans;

use std::future::Future;
use std::time::Duration;

use artifacts::{ArtifactError, keys};
use buckets::{BucketError, Buckets};
use domain::Clock;
use store::{Store, StoreError, files, idempotency, uploads};

/// Between two looks at what is due.
const PERIOD: Duration = Duration::from_mins(1);
/// Looks between two sweeps of the whole bucket.
const LOOKS_PER_ORPHAN_SWEEP: u32 = 60;
/// How long after its end an upload keeps its parts: they may be being joined, for a client that asked in time.
const UPLOAD_GRACE: time::Duration = time::Duration::minutes(15);
/// Rows taken at once.
const BATCH: u32 = 100;
/// Kept answers deleted at once.
const ANSWERS_BATCH: u32 = 1_000;

/// A sweep that ended early. The next one goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The database failed.
    #[error("the sweep could not read or write the database")]
    Store(#[from] StoreError),
    /// The bucket failed.
    #[error("the sweep could not list or delete objects")]
    Artifacts(#[from] ArtifactError),
    /// It is not known which bucket.
    #[error("the sweep could not find a project's bucket")]
    Bucket(#[from] BucketError),
}

/// The sweeper of one installation. Several may run; they take different rows.
#[derive(Clone)]
pub struct Sweeper {
    store: Store,
    buckets: Buckets,
    clock: Clock,
}

impl Sweeper {
    /// `store` must have a login that may take on the worker's role.
    pub fn new(store: Store, buckets: Buckets, clock: Clock) -> Self {
        Self {
            store,
            buckets,
            clock,
        }
    }

    /// Sweeps every minute, orphans every hour, until `shutdown` resolves. Failures are logged, not returned:
    /// what was not swept stays for the next time.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        for look in 0_u32.. {
            tokio::select! {
                () = &mut shutdown => return,
                () = self.look(look % LOOKS_PER_ORPHAN_SWEEP == 0) => {}
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn look(&self, with_orphans: bool) {
        report("expired files", self.delete_expired_files().await);
        report("expired uploads", self.end_expired_uploads().await);
        report("deleted objects", self.delete_due_objects().await);
        report("kept answers", self.delete_old_answers().await);
        if with_orphans {
            report("orphans", self.delete_orphans().await);
        }
    }

    /// Deletes the files whose time is over; their objects become due. Says how many files there were.
    ///
    /// # Errors
    /// The database failed.
    pub async fn delete_expired_files(&self) -> Result<u64, SweepError> {
        let mut n_deleted = 0;
        loop {
            let mut tx = self.store.worker_tx().await?;
            let expired = files::expired(&mut tx, self.clock.now(), BATCH).await?;
            tx.commit().await?;
            if expired.is_empty() {
                return Ok(n_deleted);
            }
            for (project_id, file_id) in expired {
                let mut tx = self.store.tenant_tx(project_id).await?;
                files::delete(&mut tx, file_id, &keys::file(project_id, file_id)).await?;
                tx.commit().await?;
                n_deleted += 1;
            }
        }
    }

    /// Deletes the answers that were kept long enough. Says how many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn delete_old_answers(&self) -> Result<u64, SweepError> {
        let mut n_deleted = 0;
        loop {
            let mut tx = self.store.worker_tx().await?;
            let n = idempotency::delete_expired(&mut tx, self.clock.now(), ANSWERS_BATCH).await?;
            tx.commit().await?;
            n_deleted += n;
            if n < u64::from(ANSWERS_BATCH) {
                return Ok(n_deleted);
            }
        }
    }

    /// Ends the uploads that nobody completed in time; their parts become due. Says how many there were.
    ///
    /// # Errors
    /// The database failed.
    pub async fn end_expired_uploads(&self) -> Result<u64, SweepError> {
        let mut n_ended = 0;
        loop {
            let now = self.clock.now();
            let mut tx = self.store.worker_tx().await?;
            let expired = uploads::expired(&mut tx, now - UPLOAD_GRACE, BATCH).await?;
            tx.commit().await?;
            if expired.is_empty() {
                return Ok(n_ended);
            }
            for (project_id, upload_id) in expired {
                let mut tx = self.store.tenant_tx(project_id).await?;
                let upload = uploads::find_for_update(&mut tx, upload_id).await?;
                // It may have been completed since we looked.
                if let Some(upload) = upload.and_then(|upload| upload.expire(now)) {
                    let prefix = keys::upload_prefix(project_id, upload_id);
                    uploads::end(&mut tx, &upload, &prefix).await?;
                    tx.commit().await?;
                    n_ended += 1;
                }
            }
        }
    }
}

fn report(what: &'static str, swept: Result<u64, SweepError>) {
    match swept {
        Ok(0) => {}
        Ok(count) => {
            metrics::counter!("attune_swept_total", "what" => what).increment(count);
            tracing::info!(count, "Swept {count} {what}");
        }
        Err(error) => {
            let chain = domain::failure::error_chain(&error);
            tracing::warn!(error = %chain, "Could not sweep {what}: {chain}");
        }
    }
}

//! Takes away what nobody needs any more: objects of deleted rows, expired files, and orphans.
//!
//! An orphan is an object that no row names: an upload or a checkpoint whose process died between storing the
//! object and writing the row. Sweeping sees every project, so it needs a login that may (the worker's); the
//! service's own may not.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use artifacts::{ArtifactError, ObjectInfo, ObjectStore, keys};
use domain::{Clock, FileId, JobId, UploadId};
use store::deletions::{self, PendingDeletion, Target};
use store::{Store, StoreError, files, idempotency, uploads};

/// Between two looks at what is due.
const PERIOD: Duration = Duration::from_mins(1);
/// Looks between two sweeps of the whole bucket.
const LOOKS_PER_ORPHAN_SWEEP: u32 = 60;
/// How old an object must be before it can be an orphan: no upload takes this long.
const GRACE_SECS: i64 = 24 * 60 * 60;
/// How long after its end an upload keeps its parts: they may be being joined, for a client that asked in time.
const UPLOAD_GRACE: time::Duration = time::Duration::minutes(15);
/// Rows taken at once.
const BATCH: u32 = 100;
/// Kept answers deleted at once.
const ANSWERS_BATCH: u32 = 1_000;
/// Objects listed at once.
const PAGE: usize = 1_000;

/// A sweep that ended early. The next one goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The database failed.
    #[error("the sweep could not read or write the database")]
    Store(#[from] StoreError),
    /// The bucket failed.
    #[error("the sweep could not list or delete objects")]
    Artifacts(#[from] ArtifactError),
}

/// The sweeper of one installation. Several may run; they take different rows.
#[derive(Clone)]
pub struct Sweeper {
    store: Store,
    objects: ObjectStore,
    clock: Clock,
}

impl Sweeper {
    /// `store` must have a login that may take on the worker's role.
    pub fn new(store: Store, objects: ObjectStore, clock: Clock) -> Self {
        Self {
            store,
            objects,
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

    /// Deletes the objects of rows that are gone. Says how many rows asked for it.
    ///
    /// # Errors
    /// The database or the bucket failed. What was taken comes up again a few minutes later.
    pub async fn delete_due_objects(&self) -> Result<u64, SweepError> {
        let mut n_done = 0;
        let mut failed = None;
        loop {
            let mut tx = self.store.worker_tx().await?;
            let pending = deletions::take(&mut tx, BATCH).await?;
            tx.commit().await?;
            if pending.is_empty() {
                return failed.map_or(Ok(n_done), |error| Err(SweepError::from(error)));
            }
            let mut ids = Vec::with_capacity(pending.len());
            for PendingDeletion { id, target, .. } in pending {
                match self.delete_target(&target).await {
                    Ok(()) => ids.push(id),
                    // One that cannot be deleted must not hold up the others.
                    Err(error) => failed = Some(error),
                }
            }
            let mut tx = self.store.worker_tx().await?;
            deletions::done(&mut tx, &ids).await?;
            tx.commit().await?;
            n_done += ids.len() as u64;
        }
    }

    async fn delete_target(&self, target: &Target) -> Result<(), ArtifactError> {
        match target {
            Target::Object(key) => self.objects.delete(key).await,
            Target::Prefix(prefix) => self.objects.delete_prefix(prefix).await.map(drop),
        }
    }

    /// Deletes old objects of projects that no row names. Says how many.
    ///
    /// # Errors
    /// The database or the bucket failed.
    pub async fn delete_orphans(&self) -> Result<u64, SweepError> {
        let newest_swept = self.clock.now().unix_timestamp() - GRACE_SECS;
        let mut n_deleted = 0;
        let mut after: Option<String> = None;
        loop {
            // Base models live beside the projects and are nobody's orphans: the prefix leaves them out.
            let page = self
                .objects
                .list_page("proj_", after.as_deref(), PAGE)
                .await?;
            after = page.last().map(|object| object.key.clone());
            let is_last = page.len() < PAGE;
            let old: Vec<_> = page
                .into_iter()
                .filter(|object| object.modified_unix_secs < newest_swept)
                .filter_map(Suspect::of)
                .collect();
            for key in self.orphans_among(old).await? {
                self.objects.delete(&key).await?;
                n_deleted += 1;
            }
            if is_last {
                return Ok(n_deleted);
            }
        }
    }

    async fn orphans_among(&self, suspects: Vec<Suspect>) -> Result<Vec<String>, SweepError> {
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let named: Vec<FileId> = suspects.iter().filter_map(Suspect::file).collect();
        let jobs: Vec<JobId> = suspects.iter().filter_map(Suspect::job).collect();
        let uploads: Vec<UploadId> = suspects.iter().filter_map(Suspect::upload).collect();
        let prefixes: Vec<String> = suspects.iter().filter_map(Suspect::prefix).collect();
        let mut tx = self.store.worker_tx().await?;
        let live = Live {
            files: deletions::live_files(&mut tx, &named).await?,
            open_jobs: deletions::open_jobs(&mut tx, &jobs).await?,
            open_uploads: deletions::open_uploads(&mut tx, &uploads).await?,
            prefixes: deletions::live_prefixes(&mut tx, &prefixes).await?,
        };
        tx.commit().await?;
        Ok(suspects
            .into_iter()
            .filter(|suspect| !live.names(suspect))
            .map(|suspect| suspect.key)
            .collect())
    }
}

/// What rows name.
struct Live {
    files: HashSet<FileId>,
    open_jobs: HashSet<JobId>,
    open_uploads: HashSet<UploadId>,
    prefixes: HashSet<String>,
}

impl Live {
    fn names(&self, suspect: &Suspect) -> bool {
        match &suspect.owner {
            Owner::File(id) => self.files.contains(id),
            Owner::Upload(id) => self.open_uploads.contains(id),
            Owner::Checkpoint { job, prefix } => {
                self.open_jobs.contains(job) || self.prefixes.contains(prefix)
            }
            Owner::Model { prefix } => self.prefixes.contains(prefix),
        }
    }
}

/// An old object, and the row that would name it.
struct Suspect {
    key: String,
    owner: Owner,
}

enum Owner {
    File(FileId),
    Upload(UploadId),
    Checkpoint { job: JobId, prefix: String },
    Model { prefix: String },
}

impl Suspect {
    /// An object whose key has a shape that is not known here is left alone.
    fn of(object: ObjectInfo) -> Option<Self> {
        let key = object.key;
        let segments: Vec<&str> = key.split('/').collect();
        let owner = match segments[..] {
            [_, "files", file] => Owner::File(file.parse().ok()?),
            [_, "uploads", upload, _] => Owner::Upload(upload.parse().ok()?),
            [project, "jobs", job, attempt, step, _] => {
                let prefix = format!("{project}/jobs/{job}/{attempt}/{step}/");
                Owner::Checkpoint {
                    job: job.parse().ok()?,
                    prefix,
                }
            }
            [project, "models", model, _] => Owner::Model {
                prefix: format!("{project}/models/{model}/"),
            },
            _ => return None,
        };
        Some(Self { key, owner })
    }

    fn file(&self) -> Option<FileId> {
        if let Owner::File(id) = self.owner {
            Some(id)
        } else {
            None
        }
    }

    fn upload(&self) -> Option<UploadId> {
        if let Owner::Upload(id) = self.owner {
            Some(id)
        } else {
            None
        }
    }

    fn job(&self) -> Option<JobId> {
        if let Owner::Checkpoint { job, .. } = self.owner {
            Some(job)
        } else {
            None
        }
    }

    fn prefix(&self) -> Option<String> {
        match &self.owner {
            Owner::Checkpoint { prefix, .. } | Owner::Model { prefix } => Some(prefix.clone()),
            Owner::File(_) | Owner::Upload(_) => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{FineTunedModelId, PartId, ProjectId};

    fn suspect(key: String) -> Option<Suspect> {
        Suspect::of(ObjectInfo {
            key,
            size_bytes: 1,
            modified_unix_secs: 0,
        })
    }

    #[test]
    fn every_key_that_rows_name_is_known() {
        let (project, job, file) = (ProjectId::new(), JobId::new(), FileId::new());
        let found = suspect(keys::file(project, file)).unwrap();
        assert_eq!(found.file(), Some(file));
        let upload = UploadId::new();
        let found = suspect(keys::upload_part(project, upload, PartId::new())).unwrap();
        assert_eq!(found.upload(), Some(upload));
        let checkpoint = keys::checkpoint(project, job, 2, 40);
        let found = suspect(format!("{checkpoint}adapter_model.safetensors")).unwrap();
        assert_eq!((found.job(), found.prefix()), (Some(job), Some(checkpoint)));
        let adapter = keys::adapter(project, FineTunedModelId::new());
        let found = suspect(format!("{adapter}adapter_config.json")).unwrap();
        assert_eq!(found.prefix(), Some(adapter));
    }

    #[test]
    fn a_key_of_another_shape_is_left_alone() {
        let (project, job) = (ProjectId::new(), JobId::new());
        assert!(suspect(keys::result(project, job, 1)).is_none());
        assert!(suspect(format!("{project}/files/notes.txt")).is_none());
        assert!(suspect(format!("{project}/exports/x")).is_none());
    }
}

//! Objects that no row names.

use std::collections::HashSet;

use artifacts::{ObjectInfo, ObjectStore, keys};
use buckets::{BucketError, ProjectObjects};
use domain::{FileId, JobId, UploadId};
use store::deletions;

use super::{SweepError, Sweeper};

/// How old an object must be before it can be an orphan: no upload takes this long.
const GRACE_SECS: i64 = 24 * 60 * 60;
/// Objects listed at once.
const PAGE: usize = 1_000;

impl Sweeper {
    /// Deletes old objects of projects that no row names. Says how many.
    ///
    /// # Errors
    /// The database or the bucket failed.
    pub async fn delete_orphans(&self) -> Result<u64, SweepError> {
        // Base models live beside the projects and are nobody's orphans: the prefix leaves them out.
        let others = self.buckets.of_the_others();
        let mut swept = self.delete_orphans_of(&others, keys::PROJECTS_PREFIX).await;
        let mut tx = self.store.worker_tx().await?;
        let ids = store::buckets::projects(&mut tx).await?;
        let places = self.buckets.of_projects(&mut tx, &ids).await?;
        tx.commit().await?;
        for place in places.into_values() {
            let of_project = self.delete_orphans_in(place).await;
            // One bucket that fails must not hold up the others.
            swept = match (swept, of_project) {
                (Ok(n), Ok(more)) => Ok(n + more),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            };
        }
        swept
    }

    async fn delete_orphans_in(
        &self,
        place: Result<ProjectObjects, BucketError>,
    ) -> Result<u64, SweepError> {
        let objects = place?;
        objects.check_own().await?;
        self.delete_orphans_of(&objects, &objects.prefix()).await
    }

    async fn delete_orphans_of(
        &self,
        objects: &ObjectStore,
        prefix: &str,
    ) -> Result<u64, SweepError> {
        let newest_swept = self.clock.now().unix_timestamp() - GRACE_SECS;
        let mut n_deleted = 0;
        let mut after: Option<String> = None;
        loop {
            let page = objects.list_page(prefix, after.as_deref(), PAGE).await?;
            after = page.last().map(|object| object.key.clone());
            let is_last = page.len() < PAGE;
            let old: Vec<_> = page
                .into_iter()
                .filter(|object| object.modified_unix_secs < newest_swept)
                .filter_map(Suspect::of)
                .collect();
            for key in self.orphans_among(old).await? {
                objects.delete(&key).await?;
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

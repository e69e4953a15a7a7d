//! The objects of rows that are gone.

use std::collections::{BTreeMap, HashSet};

use artifacts::{ArtifactError, ObjectStore};
use buckets::{BucketError, ProjectObjects};
use domain::ProjectId;
use store::deletions::{self, PendingDeletion, Target};

use super::{BATCH, SweepError, Sweeper};

impl Sweeper {
    /// Deletes the objects of rows that are gone. Says how many rows asked for it.
    ///
    /// # Errors
    /// The database or the bucket failed. What was taken comes up again a few minutes later.
    pub async fn delete_due_objects(&self) -> Result<u64, SweepError> {
        let mut n_done = 0;
        let mut failures = Failures::default();
        loop {
            let mut tx = self.store.worker_tx().await?;
            let pending = deletions::take(&mut tx, BATCH).await?;
            tx.commit().await?;
            if pending.is_empty() {
                return failures.latest.map_or(Ok(n_done), Err);
            }
            let done = self.delete_all(pending, &mut failures).await?;
            let mut tx = self.store.worker_tx().await?;
            deletions::done(&mut tx, &done).await?;
            tx.commit().await?;
            n_done += done.len() as u64;
        }
    }

    /// Deletes what can be deleted, and says which that was.
    async fn delete_all(
        &self,
        pending: Vec<PendingDeletion>,
        failures: &mut Failures,
    ) -> Result<Vec<i64>, SweepError> {
        let mut by_project: BTreeMap<ProjectId, Vec<PendingDeletion>> = BTreeMap::new();
        for deletion in pending {
            by_project
                .entry(deletion.project_id)
                .or_default()
                .push(deletion);
        }
        let ids: Vec<ProjectId> = by_project.keys().copied().collect();
        let mut tx = self.store.worker_tx().await?;
        let mut places = self.buckets.of_projects(&mut tx, &ids).await?;
        tx.commit().await?;
        let mut done = Vec::new();
        for (project_id, pending) in by_project {
            // Each deletion would wait as long for a bucket that is away.
            if failures.projects.contains(&project_id) {
                continue;
            }
            let place = places.remove(&project_id);
            let place = place.expect("every project has a place");
            if let Err(error) = delete_of_project(place, pending, &mut done, failures).await {
                failures.projects.insert(project_id);
                failures.latest = Some(error);
            }
        }
        Ok(done)
    }
}

/// Notes in `done` what is deleted. Ends early only where the bucket of the project fails as a whole.
async fn delete_of_project(
    place: Result<ProjectObjects, BucketError>,
    pending: Vec<PendingDeletion>,
    done: &mut Vec<i64>,
    failures: &mut Failures,
) -> Result<(), SweepError> {
    let objects = place?;
    objects.check_own().await?;
    for PendingDeletion { id, target, .. } in pending {
        match delete_target(&objects, &target).await {
            Ok(()) => done.push(id),
            Err(error) if error.own_bucket().is_some() => return Err(error.into()),
            // One that cannot be deleted must not hold up the others.
            Err(error) => failures.latest = Some(error.into()),
        }
    }
    Ok(())
}

async fn delete_target(objects: &ObjectStore, target: &Target) -> Result<(), ArtifactError> {
    match target {
        Target::Object(key) => objects.delete(key).await,
        Target::Prefix(prefix) => objects.delete_prefix(prefix).await.map(drop),
    }
}

/// What went wrong in a sweep that goes on.
#[derive(Default)]
struct Failures {
    latest: Option<SweepError>,
    /// Whose buckets are left alone until the next sweep.
    projects: HashSet<ProjectId>,
}

//! Finds the checkpoint an attempt goes on from.

use std::path::Path;
use std::sync::Arc;

use artifacts::ArtifactError;
use buckets::ProjectObjects;
use store::checkpoints;
use store::checkpoints::Checkpoint as StoredCheckpoint;
use tracing::warn;
use training::{Checkpoint, checkpoint};

use crate::attempt::Attempt;
use crate::failure::Stop;
use crate::inputs::{Base, blocking};

/// How many damaged checkpoints are passed over before the job starts afresh.
const TRIED: u32 = 5;

/// The job's newest checkpoint that is whole, if it has one.
pub(crate) async fn latest(
    attempt: &Attempt<'_>,
    base: &Arc<Base>,
    dir: &Path,
) -> Result<Option<Checkpoint>, Stop> {
    let mut tx = attempt
        .worker
        .store
        .tenant_tx(attempt.lease.project_id)
        .await?;
    let stored = checkpoints::list(&mut tx, attempt.job.id, None, TRIED).await?;
    let objects = attempt.worker.buckets.of(&mut tx).await?;
    tx.commit().await?;
    for candidate in stored.data {
        let dir = dir.join(format!("resume-{}", candidate.step));
        match fetch(&objects, &candidate, base, &dir).await? {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(reason) => warn!(
                job.id = %attempt.job.id, step = candidate.step,
                "Passing over the checkpoint of step {}: {reason}", candidate.step
            ),
        }
    }
    Ok(None)
}

/// The inner error is the checkpoint's own fault; the outer one is the world's.
async fn fetch(
    objects: &ProjectObjects,
    stored: &StoredCheckpoint,
    base: &Arc<Base>,
    dir: &Path,
) -> Result<Result<Checkpoint, String>, Stop> {
    match objects
        .mirror(&stored.object_prefix, &stored.manifest, dir)
        .await
    {
        Ok(()) => {}
        Err(error @ (ArtifactError::NotFound { .. } | ArtifactError::Checksum { .. })) => {
            return Ok(Err(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    let (base, dir) = (base.clone(), dir.to_owned());
    blocking(move || {
        Ok(checkpoint::load(&dir, &base.model)
            .map_err(|error| domain::failure::error_chain(&error)))
    })
    .await
}

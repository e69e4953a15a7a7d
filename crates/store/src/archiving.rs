//! The end of a project: nobody is let in any more, and what it has under way stops.
//!
//! All of it is one transaction of an administrator, which works as the project's tenant in between: an administrator sees
//! no job, and a job that is cancelled here ends as any that its tenant cancels, told to webhooks and to its worker.

use domain::{BatchId, JobId, JobStatus, OrgId, ProjectId, UploadId};
use serde_json::json;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::audit::Act;
use crate::events::EventLevel;
use crate::tx::Connection;
use crate::{AdminTx, StoreError, TenantTx, batches, events, jobs, projects, uploads};

/// What the events of a job say that ends with its project.
const EVENT: &str = "Fine-tuning job cancelled: its project was archived";

/// What stopped with a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Jobs that waited, were paused or at a worker.
    pub n_jobs: usize,
    /// Batches that had not ended. Files with what was answered by then are still written.
    pub n_batches: usize,
    /// Uploads whose parts were still coming.
    pub n_uploads: usize,
}

impl Stopped {
    /// What the audit log keeps of the end of the project `id`.
    pub fn act(&self, id: ProjectId) -> Act {
        let details = json!({
            "cancelled_jobs": self.n_jobs,
            "cancelled_batches": self.n_batches,
            "cancelled_uploads": self.n_uploads,
        });
        let act = Act::new("project.archived", "organization.project", id);
        act.project(id).details(details)
    }
}

/// Lets nobody into the organization's project from now on and cancels its work. There is no way back. None if it was
/// archived before. The parts of an upload lie below its `upload_prefix`.
///
/// What a request that was let in before makes afterwards is refused ([`StoreError::Archived`]).
pub async fn archive<Tx: AdminTx>(
    mut tx: Tx,
    org_id: OrgId,
    id: ProjectId,
    upload_prefix: fn(ProjectId, UploadId) -> String,
    now: OffsetDateTime,
) -> Result<(Tx, Option<Stopped>), StoreError> {
    if !projects::archive(&mut tx, org_id, id, now).await? {
        return Ok((tx, None));
    }
    let (mut tenant, home) = TenantTx::within(tx, id).await?;
    let stopped = Stopped {
        n_jobs: cancel_jobs(&mut tenant, now).await?,
        n_batches: cancel_batches(&mut tenant, now).await?,
        n_uploads: cancel_uploads(&mut tenant, upload_prefix, now).await?,
    };
    Ok((tenant.leave(home).await?, Some(stopped)))
}

/// All in a few statements, however many there are: as [`domain::Job::cancel`] does it, and [`jobs::save`] stores it.
async fn cancel_jobs(tx: &mut TenantTx, now: OffsetDateTime) -> Result<usize, StoreError> {
    // All of them before the first is written: writing one takes the row of the project's queue, and a worker that holds
    // another of these jobs may be waiting for that row.
    let ids = sqlx::query_scalar!(
        "SELECT id FROM jobs WHERE project_id = $1 AND status NOT IN ('succeeded', 'failed', 'cancelled')
         ORDER BY id FOR NO KEY UPDATE",
        tx.project_id().0
    )
    .fetch_all(tx.connection())
    .await?;
    // Or each would count itself out of the queue, one version of its row after another.
    sqlx::query!("SELECT close_queue()")
        .execute(tx.connection())
        .await?;
    sqlx::query!(
        "UPDATE jobs
         SET status = $3, finished_at = $4, estimated_finish = NULL, lease_token = NULL, lease_expires_at = NULL
         WHERE project_id = $1 AND id = ANY ($2)",
        tx.project_id().0,
        &ids,
        JobStatus::Cancelled.as_str(),
        now,
    )
    .execute(tx.connection())
    .await?;
    let ids: Vec<JobId> = ids.into_iter().map(JobId).collect();
    jobs::tell_cancelled(tx, &ids, now).await?;
    events::append_to_all(tx, &ids, EventLevel::Info, EVENT, now).await?;
    Ok(ids.len())
}

async fn cancel_batches(tx: &mut TenantTx, now: OffsetDateTime) -> Result<usize, StoreError> {
    let ids: Vec<Uuid> = sqlx::query_scalar!(
        "SELECT id FROM batches
         WHERE project_id = $1 AND status IN ('validating', 'in_progress', 'finalizing') ORDER BY id",
        tx.project_id().0
    )
    .fetch_all(tx.connection())
    .await?;
    let mut n_batches = 0;
    for id in ids.into_iter().map(BatchId) {
        let found = batches::find_for_update(tx, id).await?;
        // It may have come to its end since we looked.
        if let Some(batch) = found.and_then(|batch| batch.cancel(now).ok()) {
            batches::save(tx, &batch).await?;
            n_batches += 1;
        }
    }
    Ok(n_batches)
}

async fn cancel_uploads(
    tx: &mut TenantTx,
    prefix: fn(ProjectId, UploadId) -> String,
    now: OffsetDateTime,
) -> Result<usize, StoreError> {
    let ids: Vec<Uuid> = sqlx::query_scalar!(
        "SELECT id FROM uploads WHERE project_id = $1 AND status = 'pending' ORDER BY id",
        tx.project_id().0
    )
    .fetch_all(tx.connection())
    .await?;
    let mut n_uploads = 0;
    for id in ids.into_iter().map(UploadId) {
        let found = uploads::find_for_update(tx, id).await?;
        if let Some(upload) = found.and_then(|upload| upload.cancel(now).ok()) {
            uploads::end(tx, &upload, &prefix(tx.project_id(), id)).await?;
            n_uploads += 1;
        }
    }
    Ok(n_uploads)
}

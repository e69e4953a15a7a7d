//! The worker's side of a claimed job: every write of an attempt proves first that the attempt still holds the job.
//!
//! The proof is a row lock taken under the lease token. As long as the transaction runs, no reaper, no cancel and no
//! other claim can get in between, so what is written with it is written by the holder or not at all.

use std::time::Duration;

use domain::{Job, JobId, LeaseToken, ProjectId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::tx::Connection;
use crate::{StoreError, TenantTx, jobs, nul};

/// The claim of one attempt at one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job_id: JobId,
    /// Its tenant, in whose transactions the worker writes.
    pub project_id: ProjectId,
    /// The fence.
    pub lease_token: LeaseToken,
    /// Which attempt this is, from 1. Object keys carry it.
    pub attempt: i32,
}

/// How the latest attempt ended whose worker reported a temporary failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastFailure {
    pub(crate) attempt: i32,
    pub(crate) message: String,
}

/// Locks the job for this attempt until the transaction ends. First in a transaction that writes anything else, such
/// as the row of a result file.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the job was cancelled, has ended, or went to another attempt.
pub async fn hold(tx: &mut TenantTx, lease: &Lease) -> Result<(), StoreError> {
    // A final job has no token, so its status need not be asked. `=` would let the planner read the index of all leased
    // jobs, which statistics from a quiet hour promise to be empty: here, in `progress`, and in the queue's heartbeats.
    let held = sqlx::query_scalar!(
        "SELECT attempt FROM jobs WHERE project_id = $1 AND id = $2 AND lease_token IS NOT DISTINCT FROM $3 FOR NO KEY UPDATE",
        tx.project_id().0,
        lease.job_id.0,
        lease.lease_token.0,
    )
    .fetch_optional(tx.connection())
    .await?;
    held.map(|_| ()).ok_or(StoreError::LeaseLost)
}

/// Asks whether this attempt has the job, and locks nothing: it may lose it the moment after. For what no row can fence:
/// before an object is stored.
///
/// # Errors
/// [`StoreError::LeaseLost`], as [`hold`].
pub async fn still_ours(tx: &mut TenantTx, lease: &Lease) -> Result<(), StoreError> {
    let held = sqlx::query_scalar!(
        "SELECT attempt FROM jobs WHERE project_id = $1 AND id = $2 AND lease_token IS NOT DISTINCT FROM $3",
        tx.project_id().0,
        lease.job_id.0,
        lease.lease_token.0,
    )
    .fetch_optional(tx.connection())
    .await?;
    held.map(|_| ()).ok_or(StoreError::LeaseLost)
}

/// Stores where the job stands. A final status ends the lease.
///
/// # Errors
/// [`StoreError::LeaseLost`], as [`hold`].
pub async fn save(tx: &mut TenantTx, lease: &Lease, job: &Job) -> Result<(), StoreError> {
    hold(tx, lease).await?;
    jobs::save(tx, job).await
}

/// The job as it stands now, for this attempt until the transaction ends.
///
/// # Errors
/// [`StoreError::LeaseLost`], as [`hold`].
pub async fn job(tx: &mut TenantTx, lease: &Lease) -> Result<Job, StoreError> {
    hold(tx, lease).await?;
    let stored = jobs::find(tx, lease.job_id).await?;
    Ok(stored.ok_or(StoreError::LeaseLost)?.job)
}

/// Stores that training goes on, and until when. A job that was paused meanwhile stays so.
///
/// # Errors
/// [`StoreError::LeaseLost`], as [`hold`].
pub async fn progress(
    tx: &mut TenantTx,
    lease: &Lease,
    estimated_finish: Option<OffsetDateTime>,
) -> Result<(), StoreError> {
    // Queued: paused and resumed before its worker looked.
    let done = sqlx::query!(
        "UPDATE jobs
         SET status = CASE status WHEN 'queued' THEN 'running' ELSE status END,
             estimated_finish = CASE status WHEN 'paused' THEN NULL ELSE $4::timestamptz END
         WHERE project_id = $1 AND id = $2 AND lease_token IS NOT DISTINCT FROM $3",
        lease.project_id.0,
        lease.job_id.0,
        lease.lease_token.0,
        estimated_finish,
    )
    .execute(tx.connection())
    .await?;
    if done.rows_affected() == 1 {
        Ok(())
    } else {
        Err(StoreError::LeaseLost)
    }
}

/// Hands the job back for a reason that is not its own: the worker is being stopped, the tenant paused it, or storage is
/// away. To be claimed after `delay` at the earliest. The attempt does not count.
///
/// # Errors
/// [`StoreError::LeaseLost`], as [`hold`].
pub async fn release(tx: &mut TenantTx, lease: &Lease, delay: Duration) -> Result<Job, StoreError> {
    let job = job(tx, lease).await?.requeue()?;
    requeue(tx.connection(), &job, delay, Uncounted(1)).await?;
    Ok(job)
}

/// Hands the job back after a temporary failure, to be claimed after `delay` at the earliest. The attempt counts.
/// `message` is kept: if later attempts end without a word, it is the last that is known.
///
/// # Errors
/// [`StoreError::NoAttemptLeft`] if this was the last attempt: the job is still held, for the caller to fail it.
/// [`StoreError::LeaseLost`], as [`hold`].
pub async fn retry_later(
    tx: &mut TenantTx,
    lease: &Lease,
    delay: Duration,
    message: &str,
) -> Result<Job, StoreError> {
    let job = job(tx, lease).await?.requeue()?;
    let failure = LastFailure {
        attempt: lease.attempt,
        message: nul::replace(message).into_owned(),
    };
    let noted = sqlx::query!(
        "UPDATE jobs SET last_failure = $3 WHERE project_id = $1 AND id = $2 AND attempt < max_attempts",
        job.project_id.0,
        job.id.0,
        Json(failure) as _,
    )
    .execute(tx.connection())
    .await?;
    if noted.rows_affected() == 0 {
        return Err(StoreError::NoAttemptLeft);
    }
    requeue(tx.connection(), &job, delay, Uncounted(0)).await?;
    Ok(job)
}

/// Forgets what earlier attempts wrote after `step`, from which this attempt goes on; 0 is the beginning. Metrics and
/// checkpoints go, and the checkpoints' objects after them. The steps' events are withdrawn, so that each step is told
/// once; a client that was told one of them still finds its place by it.
///
/// # Errors
/// [`StoreError::LeaseLost`], as [`hold`].
pub async fn resume_from(tx: &mut TenantTx, lease: &Lease, step: u64) -> Result<(), StoreError> {
    hold(tx, lease).await?;
    let (project_id, job_id) = (lease.project_id.0, lease.job_id.0);
    let step = crate::number::to_bigint("step", step)?;
    let connection = tx.connection();
    sqlx::query!(
        "DELETE FROM job_metrics WHERE project_id = $1 AND job_id = $2 AND step > $3",
        project_id,
        job_id,
        step
    )
    .execute(&mut *connection)
    .await?;
    // Compared as JSON, where a number is never less than a string: no cast that odd data could break.
    sqlx::query!(
        "UPDATE job_events SET withdrawn_at = now()
         WHERE project_id = $1 AND job_id = $2 AND withdrawn_at IS NULL
           AND type = 'metrics' AND data -> 'step' > to_jsonb($3::bigint)",
        project_id,
        job_id,
        step
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "DELETE FROM fine_tuned_models WHERE project_id = $1 AND job_id = $2 AND checkpoint_step > $3",
        project_id,
        job_id,
        step
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "WITH gone AS (
             DELETE FROM checkpoints WHERE project_id = $1 AND job_id = $2 AND step > $3
             RETURNING object_prefix
         )
         INSERT INTO object_deletions (project_id, key, is_prefix)
         SELECT $1, rtrim(object_prefix, '/') || '/', true FROM gone",
        project_id,
        job_id,
        step
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Attempts by which the job's bound grows: those that ended through no fault of the job.
pub(crate) struct Uncounted(pub(crate) i32);

/// Stores that nobody holds the job any more.
pub(crate) async fn requeue(
    connection: &mut PgConnection,
    job: &Job,
    delay: Duration,
    uncounted: Uncounted,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE jobs
         SET status = $3, estimated_finish = NULL, lease_token = NULL, lease_expires_at = NULL,
             next_attempt_at = now() + make_interval(secs => $4), max_attempts = max_attempts + $5
         WHERE project_id = $1 AND id = $2",
        job.project_id.0,
        job.id.0,
        job.status.as_str(),
        delay.as_secs_f64(),
        uncounted.0,
    )
    .execute(connection)
    .await?;
    Ok(())
}

//! Whether one more job may wait, and train.

use domain::{Job, JobId};
use time::OffsetDateTime;

use super::{QuotaExceeded, own, storage_bytes};
use crate::number::{from_bigint, to_bigint};
use crate::tx::Connection;
use crate::{StoreError, TenantTx};

/// Whether a job that this transaction has just stored may be added. `n_tokens` is what it is expected to train.
///
/// # Errors
/// [`StoreError::Quota`] if a limit is exceeded with it, or nothing is left of what the project may store. How large its
/// models become is not known yet: whatever it makes is kept.
pub async fn admit_job(
    tx: &mut TenantTx,
    job: &Job,
    n_tokens: u64,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let quotas = own(tx).await?;
    if let Some(max) = quotas.max_storage_bytes {
        let used = storage_bytes(tx).await?;
        if used >= max {
            return Err(QuotaExceeded::NoRoomForModels { max, used }.into());
        }
    }
    if quotas.max_queued_jobs.is_none() && quotas.max_trained_tokens_per_day.is_none() {
        return Ok(());
    }
    lock(tx).await?;
    if let Some(max) = quotas.max_queued_jobs {
        admit_to_queue(tx, job.id, max).await?;
    }
    if let Some(max) = quotas.max_trained_tokens_per_day {
        let used = expect_tokens(tx, job.id, n_tokens, now).await?;
        if used > max {
            return Err(QuotaExceeded::TrainedTokens {
                max,
                used: used - n_tokens,
                wanted: n_tokens,
            }
            .into());
        }
    }
    Ok(())
}

/// Whether a job that this transaction has put back into the queue may wait there. What it is expected to train was
/// counted when it was made, and while it was paused.
///
/// # Errors
/// [`StoreError::Quota`] if the queue is full without it.
pub async fn admit_resumed(tx: &mut TenantTx, id: JobId) -> Result<(), StoreError> {
    let Some(max) = own(tx).await?.max_queued_jobs else {
        return Ok(());
    };
    lock(tx).await?;
    admit_to_queue(tx, id, max).await
}

/// Whoever counts next sees what this transaction adds, or does not find it because it was refused.
async fn lock(tx: &mut TenantTx) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('attune quota ' || $1::text, 0))",
        tx.project_id().to_string()
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Counts the others: a worker may still be at a job that was paused and resumed, and is about to hand it back.
async fn admit_to_queue(tx: &mut TenantTx, id: JobId, max: u64) -> Result<(), StoreError> {
    let waiting = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM jobs
         WHERE project_id = $1 AND id <> $2 AND lease_token IS NULL AND status IN ('validating_files', 'queued')"#,
        tx.project_id().0,
        id.0
    )
    .fetch_one(tx.connection())
    .await?;
    let waiting = from_bigint("number of jobs", waiting)?;
    if waiting >= max {
        return Err(QuotaExceeded::QueuedJobs { max, waiting }.into());
    }
    Ok(())
}

/// Notes what a job is expected to train, and adds up what counts towards today: of a job that finished today, what it
/// trained, also where it failed or was cancelled; of one that has not finished, what is expected of it. A job that was
/// made before the project had a limit counts once it has finished.
async fn expect_tokens(
    tx: &mut TenantTx,
    job_id: JobId,
    n_tokens: u64,
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    let project_id = tx.project_id().0;
    sqlx::query!(
        "DELETE FROM job_token_estimates e USING jobs j
         WHERE e.project_id = $1 AND j.project_id = e.project_id AND j.id = e.job_id AND j.finished_at IS NOT NULL",
        project_id
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "INSERT INTO job_token_estimates (project_id, job_id, n_tokens) VALUES ($1, $2, $3)",
        project_id,
        job_id.0,
        to_bigint("n_tokens", n_tokens)?
    )
    .execute(tx.connection())
    .await?;
    let midnight = now
        .to_offset(time::UtcOffset::UTC)
        .replace_time(time::Time::MIDNIGHT);
    let used = sqlx::query_scalar!(
        r#"SELECT LEAST(9223372036854775807, (
             SELECT COALESCE(sum(COALESCE(j.trained_tokens, (
                 SELECT sum(m.n_tokens) FROM job_metrics m WHERE m.project_id = j.project_id AND m.job_id = j.id
             ), 0)), 0)
             FROM jobs j WHERE j.project_id = $1 AND j.finished_at >= $2
         ) + (
             SELECT COALESCE(sum(e.n_tokens), 0) FROM job_token_estimates e WHERE e.project_id = $1
         ))::bigint AS "used!""#,
        project_id,
        midnight
    )
    .fetch_one(tx.connection())
    .await?;
    from_bigint("number of tokens", used)
}

//! The queue: jobs wait in their own table, workers claim them with a lease that runs out.
//!
//! All times here are the database's: workers' clocks differ, and a lease must end for everybody at once.

use std::time::Duration;

use domain::job::JobError;
use domain::{Job, JobId, LeaseToken, ProjectId};
use time::OffsetDateTime;

use crate::events::{self, EventLevel, NewEvent};
use crate::jobs::{self, JobRequest, JobRow, StoredJob, query_jobs};
use crate::lease::{self, Lease, Uncounted};
use crate::number::from_bigint;
use crate::tx::Connection;
use crate::{StoreError, WorkerTx};

/// A job that is now this worker's.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The job. Claiming does not move its status: the worker does, once the files are in order.
    pub job: Job,
    /// What the client asked for.
    pub request: JobRequest,
    /// The fence for everything the attempt writes.
    pub lease: Lease,
    /// Attempts the job has in all.
    pub max_attempts: i32,
}

impl Claimed {
    /// Whether a temporary failure of this attempt is the job's.
    pub fn is_last_attempt(&self) -> bool {
        self.lease.attempt >= self.max_attempts
    }
}

/// Takes the next job, if one waits, for `lease_for`.
///
/// Fair between tenants in a simple way: those with the fewest jobs at workers come first, among them the oldest job.
/// Two claims at the same instant may count the same jobs at work; the next claim evens that out.
pub async fn claim(
    tx: &mut WorkerTx,
    worker: &str,
    lease_for: Duration,
) -> Result<Option<Claimed>, StoreError> {
    // SKIP LOCKED: a row that another claim has locked is on its way to that worker. Waiting for it would end in
    // nothing; the next row in order is free.
    let row = query_jobs!(
        "WITH at_work AS (
             SELECT project_id, count(*) AS n FROM jobs WHERE lease_token IS NOT NULL GROUP BY project_id
         ), next AS (
             SELECT w.project_id, w.id
             FROM jobs w LEFT JOIN at_work USING (project_id)
             WHERE w.lease_token IS NULL AND w.status IN ('validating_files', 'queued')
               AND w.next_attempt_at <= now()
             ORDER BY COALESCE(at_work.n, 0), w.created_at, w.id
             LIMIT 1
             FOR NO KEY UPDATE OF w SKIP LOCKED
         )
         UPDATE jobs j
         SET attempt = j.attempt + 1, worker = $1, lease_token = $2,
             lease_expires_at = now() + make_interval(secs => $3)
         FROM next
         WHERE j.project_id = next.project_id AND j.id = next.id
         RETURNING",
        "",
        worker,
        LeaseToken::new().0,
        lease_for.as_secs_f64(),
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(claimed).transpose()
}

fn claimed(row: JobRow) -> Result<Claimed, StoreError> {
    let max_attempts = row.max_attempts;
    let lease_token = row
        .lease_token
        .map(LeaseToken)
        .ok_or(StoreError::LeaseLost)?;
    let StoredJob { job, request } = row.read()?;
    let lease = Lease {
        job_id: job.id,
        project_id: job.project_id,
        lease_token,
        attempt: job.attempt,
    };
    Ok(Claimed {
        job,
        request,
        lease,
        max_attempts,
    })
}

/// Extends the lease to `lease_for` from now.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the job was cancelled, has ended, or went to another attempt.
pub async fn heartbeat(
    tx: &mut WorkerTx,
    lease: &Lease,
    lease_for: Duration,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE jobs SET lease_expires_at = now() + make_interval(secs => $4)
         WHERE project_id = $1 AND id = $2 AND lease_token = $3",
        lease.project_id.0,
        lease.job_id.0,
        lease.lease_token.0,
        lease_for.as_secs_f64(),
    )
    .execute(tx.connection())
    .await?;
    if done.rows_affected() == 1 {
        Ok(())
    } else {
        Err(StoreError::LeaseLost)
    }
}

/// A job whose worker was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// The job.
    pub job_id: JobId,
    /// Its tenant.
    pub project_id: ProjectId,
    /// The attempt that was lost.
    pub attempt: i32,
    /// Whether that was the last one.
    pub failed: bool,
}

/// Takes back jobs whose lease ran out: to the queue, or to `failed` if that was the last attempt. At most `limit`.
pub async fn reap(tx: &mut WorkerTx, limit: u32) -> Result<Vec<Reaped>, StoreError> {
    let rows = query_jobs!(
        "SELECT",
        "FROM jobs j WHERE j.lease_token IS NOT NULL AND j.lease_expires_at < now()
         ORDER BY j.lease_expires_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED",
        i64::from(limit)
    )
    .fetch_all(tx.connection())
    .await?;
    let now = sqlx::query_scalar!(r#"SELECT now() AS "now!""#)
        .fetch_one(tx.connection())
        .await?;
    let mut reaped = Vec::with_capacity(rows.len());
    for row in rows {
        let max_attempts = row.max_attempts;
        let job = row.read()?.job;
        reaped.push(take_back(tx, job, max_attempts, now).await?);
    }
    Ok(reaped)
}

async fn take_back(
    tx: &mut WorkerTx,
    job: Job,
    max_attempts: i32,
    now: OffsetDateTime,
) -> Result<Reaped, StoreError> {
    let (job_id, project_id, attempt) = (job.id, job.project_id, job.attempt);
    let failed = attempt >= max_attempts;
    let event = if failed {
        let error = worker_lost(attempt);
        let message = error.message.clone();
        jobs::write(tx.connection(), &job.fail(error, now)?).await?;
        NewEvent::message(EventLevel::Error, message, now)
    } else {
        // No pause: the lease that ran out was one.
        lease::requeue(
            tx.connection(),
            &job.requeue()?,
            Duration::ZERO,
            Uncounted(0),
        )
        .await?;
        let message = format!(
            "The worker was lost in attempt {attempt} of {max_attempts}; the job goes on from its last checkpoint"
        );
        NewEvent::message(EventLevel::Warn, message, now)
    };
    events::insert(tx.connection(), project_id, job_id, &[event]).await?;
    Ok(Reaped {
        job_id,
        project_id,
        attempt,
        failed,
    })
}

fn worker_lost(attempts: i32) -> JobError {
    let times = if attempts == 1 {
        "once".to_owned()
    } else {
        format!("{attempts} times")
    };
    JobError {
        code: "worker_lost".to_owned(),
        message: format!(
            "the job was tried {times} and in the end its worker died without a word, probably because it ran out of \
             memory; a smaller `batch_size`, `max_seq_len` or `lora.rank` needs less"
        ),
        param: None,
    }
}

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that wait, those that pause between attempts included.
    pub waiting: u64,
    /// Jobs at workers.
    pub leased: u64,
}

/// How much there is to do, over all tenants.
pub async fn depth(tx: &mut WorkerTx) -> Result<Depth, StoreError> {
    // Two counts, each over its own partial index; one pass over the table would read every finished job.
    let row = sqlx::query!(
        r#"SELECT
               (SELECT count(*) FROM jobs
                WHERE lease_token IS NULL AND status IN ('validating_files', 'queued')) AS "waiting!",
               (SELECT count(*) FROM jobs WHERE lease_token IS NOT NULL) AS "leased!""#
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(Depth {
        waiting: from_bigint("count", row.waiting)?,
        leased: from_bigint("count", row.leased)?,
    })
}

/// The pause after a temporary failure of this attempt: 5 s, 20 s, 80 s, …, at most 15 minutes.
pub fn backoff(attempt: i32) -> Duration {
    let exponent = u32::try_from(attempt.clamp(1, 10) - 1).unwrap_or(0);
    Duration::from_secs((5 * 4_u64.pow(exponent)).min(900))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_quarter_of_an_hour() {
        let secs = [1, 2, 3, 4, 5, i32::MAX].map(|attempt| backoff(attempt).as_secs());
        assert_eq!(secs, [5, 20, 80, 320, 900, 900]);
    }

    #[test]
    fn a_lost_worker_points_at_memory() {
        let error = worker_lost(4);
        assert!(error.message.contains("4 times") && error.message.contains("out of memory"));
    }
}

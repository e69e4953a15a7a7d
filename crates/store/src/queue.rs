//! The queue: jobs wait in their own table, workers claim them with a lease that runs out.
//!
//! All times here are the database's: workers' clocks differ, and a lease must end for everybody at once.

use std::time::Duration;

use domain::job::JobError;
use domain::{Job, JobId, JobStatus, LeaseToken, ProjectId, WorkerKind};
use sqlx::types::Uuid;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::events::{self, EventLevel, NewEvent};
use crate::jobs::{self, JobRequest, JobRow, StoredJob, query_jobs};
use crate::lease::{self, LastFailure, Lease, Uncounted};
use crate::number::{from_bigint, to_bigint};
use crate::tx::Connection;
use crate::{StoreError, TenantTx, WorkerTx, stranded};

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

/// Takes the next job that a worker of this kind can do, if one waits, for `lease_for`.
///
/// Fair between tenants: the turn is that of the project whose clock (`project_queues.virtual_time`) is behind all others',
/// among those of the highest priority. Taking a job moves its clock on by one over its weight, so what a project
/// waits for is the others' turns, never the length of their queues. Within a project the oldest job comes first.
///
/// In a transaction of its own: it holds the project's row until the commit.
pub async fn claim(
    tx: &mut WorkerTx,
    worker: &str,
    kind: WorkerKind,
    lease_for: Duration,
) -> Result<Option<Claimed>, StoreError> {
    keep_to_the_indexes(tx).await?;
    let mut passed_over = Vec::new();
    while let Some(project_id) = turn(tx, kind, &passed_over).await? {
        if let Some(row) = take(tx, project_id, worker, kind, lease_for).await? {
            if row.stranded_at.is_some() {
                stranded::taken(tx, ProjectId(row.project_id), JobId(row.id)).await?;
            }
            return claimed(row).map(Some);
        }
        // Its jobs are being cancelled or paused at this moment.
        passed_over.push(project_id);
    }
    Ok(None)
}

/// Both orders that a claim asks for are those of an index, of which it needs the first entry. Statistics are always old
/// where a thousand jobs may come and go in a second, and from old ones the planner concludes that few rows are
/// quickly sorted: then each claim would read a project's whole queue.
async fn keep_to_the_indexes(tx: &mut WorkerTx) -> Result<(), StoreError> {
    // What cannot be had without sorting (the first of two) is taken for very dear then, and must not be compiled for that.
    sqlx::query(
        "SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
                set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)",
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The first project that may be served and has a job for the device `$1` with the memory `$2`, but none of `$3`.
macro_rules! query_turn {
    ($lock:tt $(, $argument:expr)* $(,)?) => {
        // OFFSET 0 keeps Postgres from making a join of it, which would read every job: the first project that has
        // something is enough, and almost always that is the first one.
        sqlx::query_scalar!(
            "SELECT q.project_id FROM project_queues q
             WHERE q.n_waiting > 0 AND (q.max_running_jobs IS NULL OR q.n_running < q.max_running_jobs)
               AND q.project_id <> ALL ($3)
               AND EXISTS (
                   SELECT FROM unnest(ARRAY['any', $1]) AS device (kind) CROSS JOIN LATERAL (
                       SELECT FROM jobs w
                       WHERE w.queue = q.project_id::text || device.kind
                         AND w.lease_token IS NULL AND w.status IN ('validating_files', 'queued')
                         AND w.needs_memory_bytes <= $2 AND w.next_attempt_at <= now()
                       LIMIT 1
                   ) some_job OFFSET 0
               )
             ORDER BY q.priority DESC, q.virtual_time, q.project_id LIMIT 1
             FOR NO KEY UPDATE OF q"
                + $lock
            $(, $argument)*
        )
    };
}

/// The project whose turn it is, locked. Claims at the same instant are given different projects as long as there are
/// some; then they wait for each other, for SKIP LOCKED alone would call a queue empty that is merely busy.
async fn turn(
    tx: &mut WorkerTx,
    kind: WorkerKind,
    passed_over: &[Uuid],
) -> Result<Option<Uuid>, StoreError> {
    let device = kind.device.as_str();
    let memory_bytes = to_bigint("memory_bytes", kind.memory_bytes)?;
    let free = query_turn!(" SKIP LOCKED", device, memory_bytes, passed_over)
        .fetch_optional(tx.connection())
        .await?;
    if free.is_some() {
        return Ok(free);
    }
    let busy = query_turn!("", device, memory_bytes, passed_over)
        .fetch_optional(tx.connection())
        .await?;
    if busy.is_none() {
        return Ok(None);
    }
    // Whoever else waited for this project had the same thought, and its clock has gone on since. Look again, with the
    // project in hand.
    let free = query_turn!(" SKIP LOCKED", device, memory_bytes, passed_over)
        .fetch_optional(tx.connection())
        .await?;
    Ok(free.or(busy))
}

/// The oldest job of the project, taken. A trigger moves the project's counts and clock.
async fn take(
    tx: &mut WorkerTx,
    project_id: Uuid,
    worker: &str,
    kind: WorkerKind,
    lease_for: Duration,
) -> Result<Option<JobRow>, StoreError> {
    // SKIP LOCKED: who holds a waiting job's row is about to cancel or pause it.
    let row = query_jobs!(
        "WITH next AS (
             SELECT w.id
             FROM unnest(ARRAY['any', $5]) AS device (kind) CROSS JOIN LATERAL (
                 SELECT j.id, j.created_at FROM jobs j
                 WHERE j.queue = $1::uuid::text || device.kind
                   AND j.lease_token IS NULL AND j.status IN ('validating_files', 'queued')
                   AND j.needs_memory_bytes <= $6 AND j.next_attempt_at <= now()
                 ORDER BY j.created_at, j.id LIMIT 1
                 FOR NO KEY UPDATE SKIP LOCKED
             ) w
             ORDER BY w.created_at, w.id LIMIT 1
         )
         UPDATE jobs j
         SET attempt = j.attempt + 1, worker = $2, device = $5, lease_token = $3,
             lease_expires_at = now() + make_interval(secs => $4)
         FROM next
         WHERE j.project_id = $1 AND j.id = next.id
         RETURNING",
        "",
        project_id,
        worker,
        LeaseToken::new().0,
        lease_for.as_secs_f64(),
        kind.device.as_str(),
        to_bigint("memory_bytes", kind.memory_bytes)?,
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row)
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

/// What the tenant wants of a job that a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To go on.
    GoOn,
    /// To be set aside: the worker writes a checkpoint and hands the job back.
    Pause,
}

impl Wish {
    fn read(status: &str) -> Self {
        if status == JobStatus::Paused.as_str() {
            Self::Pause
        } else {
            Self::GoOn
        }
    }
}

/// Extends the lease to `lease_for` from now, and says what the tenant wants.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the job was cancelled, has ended, or went to another attempt.
pub async fn heartbeat(
    tx: &mut WorkerTx,
    lease: &Lease,
    lease_for: Duration,
) -> Result<Wish, StoreError> {
    let status = sqlx::query_scalar!(
        "UPDATE jobs SET lease_expires_at = now() + make_interval(secs => $4)
         WHERE project_id = $1 AND id = $2 AND lease_token IS NOT DISTINCT FROM $3
         RETURNING status",
        lease.project_id.0,
        lease.job_id.0,
        lease.lease_token.0,
        lease_for.as_secs_f64(),
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(Wish::read(&status.ok_or(StoreError::LeaseLost)?))
}

/// What the tenant wants, without extending the lease: cheap enough to be asked every second.
///
/// # Errors
/// [`StoreError::LeaseLost`], as [`heartbeat`].
pub async fn wish(tx: &mut WorkerTx, lease: &Lease) -> Result<Wish, StoreError> {
    let status = sqlx::query_scalar!(
        "SELECT status FROM jobs WHERE project_id = $1 AND id = $2 AND lease_token IS NOT DISTINCT FROM $3",
        lease.project_id.0,
        lease.job_id.0,
        lease.lease_token.0,
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(Wish::read(&status.ok_or(StoreError::LeaseLost)?))
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
///
/// In a transaction of its own, as [`claim`].
pub async fn reap(tx: &mut WorkerTx, limit: u32) -> Result<Vec<Reaped>, StoreError> {
    let mut rows = query_jobs!(
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
    // Each takes its project's row. Two reapers that took them in different orders would wait for each other.
    rows.sort_by_key(|row| row.project_id);
    let mut reaped = Vec::with_capacity(rows.len());
    for row in rows {
        let lost = Lost {
            max_attempts: row.max_attempts,
            lease_ran_out_at: row.lease_expires_at.unwrap_or(now),
            last_failure: row.last_failure.as_ref().map(|failure| failure.0.clone()),
        };
        let job = row.read()?.job;
        reaped.push(take_back(tx, job, &lost, now).await?);
    }
    Ok(reaped)
}

/// What is known of an attempt whose worker was lost.
struct Lost {
    max_attempts: i32,
    lease_ran_out_at: OffsetDateTime,
    /// Of an attempt before it.
    last_failure: Option<LastFailure>,
}

async fn take_back(
    tx: &mut WorkerTx,
    job: Job,
    lost: &Lost,
    now: OffsetDateTime,
) -> Result<Reaped, StoreError> {
    let (job_id, project_id, attempt) = (job.id, job.project_id, job.attempt);
    let max_attempts = lost.max_attempts;
    let failed = attempt >= max_attempts;
    let event = if failed {
        let error = worker_lost(attempt, lost);
        let message = error.message.clone();
        jobs::write(tx.connection(), &job.fail(error, now)?).await?;
        NewEvent::message(EventLevel::Error, message, now)
    } else {
        // No delay: the lease that ran out was one.
        let job = job.requeue()?;
        lease::requeue(tx.connection(), &job, Duration::ZERO, Uncounted(0)).await?;
        let goes_on = if job.status == JobStatus::Paused {
            "the job stays paused, and will go on"
        } else {
            "the job goes on"
        };
        let message = format!(
            "The worker was lost in attempt {attempt} of {max_attempts}: its lease ran out at {}; \
             {goes_on} from its last checkpoint",
            to_the_second(lost.lease_ran_out_at)
        );
        NewEvent::message(EventLevel::Warn, message, now)
    }
    .of_attempt(attempt);
    events::insert(tx.connection(), project_id, job_id, &[event]).await?;
    Ok(Reaped {
        job_id,
        project_id,
        attempt,
        failed,
    })
}

fn worker_lost(attempts: i32, lost: &Lost) -> JobError {
    let times = if attempts == 1 {
        "once".to_owned()
    } else {
        format!("{attempts} times")
    };
    let before = lost.last_failure.as_ref().map(|failure| {
        let LastFailure { attempt, message } = failure;
        format!(". Before that, attempt {attempt} failed: {message}")
    });
    let message = format!(
        "the job was tried {times} and in the end its worker died without a word (its lease ran out at {}), probably \
         because it ran out of memory; a smaller `batch_size`, `max_seq_len` or `lora.rank` needs less{}",
        to_the_second(lost.lease_ran_out_at),
        before.unwrap_or_default(),
    );
    JobError {
        code: "worker_lost".to_owned(),
        message,
        param: None,
    }
}

/// A time as people read it.
fn to_the_second(time: OffsetDateTime) -> String {
    let time = time.truncate_to_second();
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
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
    let row = sqlx::query!(
        r#"SELECT COALESCE(sum(n_waiting), 0)::bigint AS "waiting!", COALESCE(sum(n_running), 0)::bigint AS "leased!"
           FROM project_queues"#
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(Depth {
        waiting: from_bigint("count", row.waiting)?,
        leased: from_bigint("count", row.leased)?,
    })
}

/// How many jobs come before this one, if nothing is added and every worker can take every job; `None` if it does not
/// wait. A number is all that a tenant learns of the others' queues.
pub async fn position(tx: &mut TenantTx, id: JobId) -> Result<Option<u64>, StoreError> {
    let n_own = sqlx::query_scalar!(
        r#"SELECT (SELECT count(*) FROM jobs before
                   WHERE before.project_id = $1 AND before.lease_token IS NULL
                     AND before.status IN ('validating_files', 'queued')
                     AND (before.created_at, before.id) < (j.created_at, j.id)) AS "n!"
           FROM jobs j
           WHERE j.project_id = $1 AND j.id = $2
             AND j.lease_token IS NULL AND j.status IN ('validating_files', 'queued')"#,
        tx.project_id().0,
        id.0,
    )
    .fetch_optional(tx.connection())
    .await?;
    match n_own {
        Some(n_own) => ahead(tx, n_own).await.map(Some),
        None => Ok(None),
    }
}

/// How many jobs would come before one that the project made now.
pub async fn next_position(tx: &mut TenantTx) -> Result<u64, StoreError> {
    let n_own = sqlx::query_scalar!(
        "SELECT n_waiting FROM project_queues WHERE project_id = $1",
        tx.project_id().0,
    )
    .fetch_optional(tx.connection())
    .await?;
    ahead(tx, n_own.unwrap_or(0)).await
}

async fn ahead(tx: &mut TenantTx, n_own: i64) -> Result<u64, StoreError> {
    let n = sqlx::query_scalar!(r#"SELECT jobs_ahead($1) AS "n!""#, n_own)
        .fetch_one(tx.connection())
        .await?;
    from_bigint("position", n)
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
        let lost = Lost {
            max_attempts: 4,
            lease_ran_out_at: OffsetDateTime::UNIX_EPOCH,
            last_failure: None,
        };
        let message = worker_lost(4, &lost).message;
        for part in [
            "4 times",
            "ran out at 1970-01-01T00:00:00Z",
            "out of memory",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}

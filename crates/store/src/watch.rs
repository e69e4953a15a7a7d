//! What an operator's alarms go by, over all tenants. Cheap however many jobs there are: each is read from an index or from
//! the queues' own counts. How many wait and run says [`crate::queue::depth`].

use std::time::Duration;

use crate::number::from_bigint;
use crate::tx::Connection;
use crate::{StoreError, WorkerTx};

/// Jobs beyond this many in one window are not counted.
const MOST_ENDED: i64 = 100_000;

/// Jobs that ended in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `succeeded`, `failed` or `cancelled`.
    pub status: String,
    /// Of the failure; empty for any other end.
    pub code: String,
    /// How many.
    pub n: u64,
}

/// How long the job has waited that is next in its project's queue, in the queue where that is longest. Zero if none waits,
/// or if all that do pause between attempts or are held back by their project's own limit.
pub async fn longest_wait(tx: &mut WorkerTx) -> Result<Duration, StoreError> {
    let seconds = sqlx::query_scalar!(
        r#"SELECT COALESCE(EXTRACT(EPOCH FROM max(now() - j.next_attempt_at)), 0)::float8 AS "seconds!"
           FROM project_queues q CROSS JOIN unnest(ARRAY['any', 'cpu', 'cuda']) AS device (kind) CROSS JOIN LATERAL (
               SELECT w.next_attempt_at FROM jobs w
               WHERE w.queue = q.project_id::text || device.kind
                 AND w.lease_token IS NULL AND w.status IN ('validating_files', 'queued')
                 AND w.next_attempt_at <= now()
               ORDER BY w.created_at, w.id LIMIT 1
           ) j
           WHERE q.n_waiting > 0 AND (q.max_running_jobs IS NULL OR q.n_running < q.max_running_jobs)"#
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(Duration::from_secs_f64(seconds.max(0.0)))
}

/// Leases that have run out and that no worker has taken back yet. Workers do so whenever they look for a job.
pub async fn lost_leases(tx: &mut WorkerTx) -> Result<u64, StoreError> {
    let n = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM jobs WHERE lease_token IS NOT NULL AND lease_expires_at < now()"#
    )
    .fetch_one(tx.connection())
    .await?;
    from_bigint("count", n)
}

/// How the jobs of the last `window` ended.
pub async fn ended(tx: &mut WorkerTx, window: Duration) -> Result<Vec<Ended>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT e.status AS "status!", e.code AS "code!", count(*) AS "n!" FROM (
               SELECT status, COALESCE(error ->> 'code', '') AS code FROM jobs
               WHERE finished_at > now() - make_interval(secs => $1) LIMIT $2
           ) e
           GROUP BY e.status, e.code"#,
        window.as_secs_f64(),
        MOST_ENDED,
    )
    .fetch_all(tx.connection())
    .await?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in rows {
        ended.push(Ended {
            status: row.status,
            code: row.code,
            n: from_bigint("count", row.n)?,
        });
    }
    Ok(ended)
}

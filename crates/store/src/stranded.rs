//! Jobs that wait in vain: no worker that lives has the device or the memory they need.
//!
//! Each is told once when that becomes so, and once when it is over. `jobs.stranded_at` is what was told last.

use std::time::Duration;

use domain::{JobId, Needs, ProjectId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::events::{self, EventLevel, NewEvent};
use crate::number::from_bigint;
use crate::tx::Connection;
use crate::workers::GONE_AFTER;
use crate::{StoreError, TenantTx, WorkerTx, workers};

/// How long a job must have waited in vain before it is told. A worker that is started again is back by then, and
/// counts until [`GONE_AFTER`] even if it took its leave.
pub const PATIENCE: Duration = Duration::from_mins(1);

const FOUND: &str = "A worker that can take the job is there";

/// Tells a job that was just made, if there are workers and none of them could take it. The job waits all the same: one
/// that can may be on its way.
pub async fn tell_new(
    tx: &mut TenantTx,
    id: JobId,
    needs: Needs,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    if !workers::all_too_small(tx, needs).await? {
        return Ok(());
    }
    let project_id = tx.project_id();
    let connection = tx.connection();
    sqlx::query!(
        "UPDATE jobs SET stranded_at = now() WHERE project_id = $1 AND id = $2",
        project_id.0,
        id.0
    )
    .execute(&mut *connection)
    .await?;
    events::insert(connection, project_id, id, &[nobody_can(needs, now)]).await
}

/// Tells up to `limit` of the jobs that have come to wait in vain. Says how many it told.
pub async fn tell_stranded(tx: &mut WorkerTx, limit: u32) -> Result<u64, StoreError> {
    // For each kind of device the most memory that a worker has, -1 without one. By project and kind, because that is the
    // index that claims go by; what fits is passed over in it without a look at the table.
    let rows = sqlx::query!(
        r#"WITH kinds AS (
             SELECT kind, COALESCE((
                 SELECT max(w.memory_bytes) FROM workers w
                 WHERE (kind = 'any' OR w.device = kind) AND w.updated_at > now() - make_interval(secs => $1)
             ), -1) AS most_bytes
             FROM unnest(ARRAY['any', 'cpu', 'cuda']) AS kind
         )
         SELECT j.project_id AS "project_id!", j.id AS "id!", j.needs_device AS "device!",
                j.needs_memory_bytes AS "memory_bytes!", now() AS "now!"
         FROM project_queues q CROSS JOIN kinds k CROSS JOIN LATERAL (
             SELECT w.project_id, w.id, w.needs_device, w.needs_memory_bytes FROM jobs w
             WHERE w.queue = q.project_id::text || k.kind
               AND w.lease_token IS NULL AND w.status IN ('validating_files', 'queued')
               AND w.needs_memory_bytes > k.most_bytes AND w.stranded_at IS NULL
               AND w.updated_at < now() - make_interval(secs => $2)
             LIMIT $3
             FOR NO KEY UPDATE SKIP LOCKED
         ) j
         WHERE q.n_waiting > 0
         LIMIT $3"#,
        GONE_AFTER.as_secs_f64(),
        PATIENCE.as_secs_f64(),
        i64::from(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    mark(tx, &ids).await?;
    for row in &rows {
        let needs = Needs {
            // `any` is no kind.
            device: row.device.parse().ok(),
            memory_bytes: from_bigint("needs_memory_bytes", row.memory_bytes)?,
        };
        let (project_id, id) = (ProjectId(row.project_id), JobId(row.id));
        let event = nobody_can(needs, row.now);
        events::insert(tx.connection(), project_id, id, &[event]).await?;
    }
    Ok(rows.len() as u64)
}

/// Tells up to `limit` of the jobs that waited in vain and that a worker can take now. Says how many it told.
pub async fn tell_found(tx: &mut WorkerTx, limit: u32) -> Result<u64, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT j.project_id, j.id, now() AS "now!" FROM jobs j
         WHERE j.stranded_at IS NOT NULL AND j.lease_token IS NULL AND j.status IN ('validating_files', 'queued')
           AND EXISTS (
               SELECT FROM workers w
               WHERE w.left_at IS NULL AND w.updated_at > now() - make_interval(secs => $1)
                 AND j.needs_device IN ('any', w.device) AND j.needs_memory_bytes <= w.memory_bytes
           )
         ORDER BY j.stranded_at LIMIT $2
         FOR NO KEY UPDATE OF j SKIP LOCKED"#,
        GONE_AFTER.as_secs_f64(),
        i64::from(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    unmark(tx, &ids).await?;
    for row in &rows {
        let (project_id, id) = (ProjectId(row.project_id), JobId(row.id));
        let event = NewEvent::message(EventLevel::Info, FOUND, row.now);
        events::insert(tx.connection(), project_id, id, &[event]).await?;
    }
    Ok(rows.len() as u64)
}

/// How many jobs wait in vain, as far as they were told.
pub async fn count(tx: &mut WorkerTx) -> Result<u64, StoreError> {
    let n = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM jobs
           WHERE stranded_at IS NOT NULL AND lease_token IS NULL AND status IN ('validating_files', 'queued')"#
    )
    .fetch_one(tx.connection())
    .await?;
    from_bigint("count", n)
}

/// A worker has taken a job that was told that nobody could.
pub(crate) async fn taken(
    tx: &mut WorkerTx,
    project_id: ProjectId,
    id: JobId,
) -> Result<(), StoreError> {
    let now = sqlx::query_scalar!(
        r#"UPDATE jobs SET stranded_at = NULL WHERE project_id = $1 AND id = $2 RETURNING now() AS "now!""#,
        project_id.0,
        id.0
    )
    .fetch_one(tx.connection())
    .await?;
    let event = NewEvent::message(EventLevel::Info, FOUND, now);
    events::insert(tx.connection(), project_id, id, &[event]).await
}

async fn mark(tx: &mut WorkerTx, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE jobs SET stranded_at = now() WHERE id = ANY ($1)",
        ids
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

async fn unmark(tx: &mut WorkerTx, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE jobs SET stranded_at = NULL WHERE id = ANY ($1)",
        ids
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

fn nobody_can(needs: Needs, now: OffsetDateTime) -> NewEvent {
    let text = format!(
        "No worker of this installation can take the job now: it needs {needs}. It waits for one that can"
    );
    NewEvent::message(EventLevel::Warn, text, now)
}

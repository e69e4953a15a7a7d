//! Turns at batches: whoever answers them holds one for a while under a lease, then lets others come first.

use std::time::Duration;

use domain::{Batch, BatchId, BatchStatus, LeaseToken, ProjectId};

use super::{BatchRow, query_batches};
use crate::tx::Connection;
use crate::{StoreError, TenantTx, WorkerTx};

/// The claim of one turn at one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The batch.
    pub batch_id: BatchId,
    /// Its tenant.
    pub project_id: ProjectId,
    /// The fence: every write of the turn names it.
    pub lease_token: LeaseToken,
}

/// Takes the next turn, if one is due, for `lease_for`.
///
/// The project that was served longest ago comes first, and no project has two turns at once: a tenant with a hundred
/// batches gets no more than one with a single batch.
pub async fn claim(
    tx: &mut WorkerTx,
    lease_for: Duration,
) -> Result<Option<(Batch, Turn)>, StoreError> {
    // Two claims side by side could not see each other's turn, and one project would have two.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('attune.batches.claim'))")
        .execute(tx.connection())
        .await?;
    let token = LeaseToken::new();
    let row = query_batches!(
        "WITH open AS (
             SELECT * FROM batches WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
         ), served AS (
             SELECT project_id, max(last_turn_at) AS last_turn_at FROM open GROUP BY project_id
             HAVING NOT bool_or(lease_token IS NOT NULL AND lease_expires_at > now())
         ), next AS (
             SELECT w.project_id, w.id
             FROM open w JOIN served USING (project_id)
             ORDER BY served.last_turn_at, w.last_turn_at, w.created_at, w.id LIMIT 1
         )
         UPDATE batches b
         SET lease_token = $1, lease_expires_at = now() + make_interval(secs => $2), last_turn_at = now()
         FROM next
         WHERE b.project_id = next.project_id AND b.id = next.id
           AND b.status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
         RETURNING",
        "",
        token.0,
        lease_for.as_secs_f64(),
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(batch) = row.map(BatchRow::read).transpose()? else {
        return Ok(None);
    };
    let turn = Turn {
        batch_id: batch.id,
        project_id: batch.project_id,
        lease_token: token,
    };
    Ok(Some((batch, turn)))
}

/// Extends the turn to `lease_for` from now, and says where the batch stands: it may have been cancelled.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the turn went to somebody else or the batch has ended.
pub async fn heartbeat(
    tx: &mut WorkerTx,
    turn: &Turn,
    lease_for: Duration,
) -> Result<BatchStatus, StoreError> {
    let status = sqlx::query_scalar!(
        "UPDATE batches SET lease_expires_at = now() + make_interval(secs => $4)
         WHERE project_id = $1 AND id = $2 AND lease_token = $3
         RETURNING status",
        turn.project_id.0,
        turn.batch_id.0,
        turn.lease_token.0,
        lease_for.as_secs_f64(),
    )
    .fetch_optional(tx.connection())
    .await?;
    status
        .ok_or(StoreError::LeaseLost)?
        .parse()
        .map_err(|error: String| StoreError::corrupt("status of a batch", error))
}

/// Ends the turn. Nothing happens if it was lost or the batch has ended.
pub async fn release(tx: &mut WorkerTx, turn: &Turn) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE batches SET lease_token = NULL, lease_expires_at = NULL, last_turn_at = now()
         WHERE project_id = $1 AND id = $2 AND lease_token = $3",
        turn.project_id.0,
        turn.batch_id.0,
        turn.lease_token.0,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The batch, locked for this turn until the transaction ends. First in a transaction that writes anything.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the turn went to somebody else or the batch has ended.
pub async fn hold(tx: &mut TenantTx, turn: &Turn) -> Result<Batch, StoreError> {
    // A final batch has no token, so its status need not be asked.
    let row = query_batches!(
        "SELECT",
        "FROM batches b WHERE b.project_id = $1 AND b.id = $2 AND b.lease_token = $3 FOR NO KEY UPDATE",
        tx.project_id().0,
        turn.batch_id.0,
        turn.lease_token.0,
    )
    .fetch_optional(tx.connection())
    .await?;
    row.ok_or(StoreError::LeaseLost)?.read()
}

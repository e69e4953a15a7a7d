//! Batches as their tenant sees them. The loop that answers them uses [`turns`] and [`lines`].

use domain::{Batch, BatchId};
use sqlx::types::Json;

use crate::number::to_bigint;
use crate::page::one_more;
use crate::tx::Connection;
use crate::{Page, StoreError, TenantTx, nul};

pub mod lines;
mod row;
pub mod turns;

pub(crate) use row::{BatchRow, query_batches};

/// What to list.
#[derive(Debug, Clone)]
pub struct BatchListing {
    /// Only batches older than this one.
    pub after: Option<BatchId>,
    /// So many at most.
    pub limit: u32,
}

/// Stores a new batch. Its turn comes by itself.
///
/// # Errors
/// [`StoreError::NulCharacter`] if its notes cannot be stored.
pub async fn create(tx: &mut TenantTx, batch: &Batch) -> Result<(), StoreError> {
    if let Some(metadata) = &batch.metadata {
        for (key, value) in metadata {
            nul::refuse("metadata", key)?;
            nul::refuse("metadata", value)?;
        }
    }
    sqlx::query!(
        "INSERT INTO batches (id, project_id, endpoint, completion_window, input_file, output_expires_after_secs,
             metadata, status, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        batch.id.0,
        batch.project_id.0,
        batch.endpoint,
        domain::batch::COMPLETION_WINDOW,
        batch.input_file.0,
        batch.output_expires_after_secs,
        batch.metadata.as_ref().map(Json) as _,
        batch.status.as_str(),
        batch.created_at,
        batch.expires_at,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The batch with this id.
pub async fn find(tx: &mut TenantTx, id: BatchId) -> Result<Option<Batch>, StoreError> {
    let row = query_batches!(
        "SELECT",
        "FROM batches b WHERE b.project_id = $1 AND b.id = $2",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(BatchRow::read).transpose()
}

/// The batch with this id, which nobody else can change before the transaction ends.
pub async fn find_for_update(tx: &mut TenantTx, id: BatchId) -> Result<Option<Batch>, StoreError> {
    let row = query_batches!(
        "SELECT",
        "FROM batches b WHERE b.project_id = $1 AND b.id = $2 FOR NO KEY UPDATE",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(BatchRow::read).transpose()
}

/// One page of the project's batches, newest first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not a batch of the project.
pub async fn list(tx: &mut TenantTx, listing: &BatchListing) -> Result<Page<Batch>, StoreError> {
    let cursor = match listing.after {
        Some(after) => Some(find(tx, after).await?.ok_or(StoreError::UnknownCursor)?),
        None => None,
    };
    let (created_at, id) = cursor.map(|batch| (batch.created_at, batch.id.0)).unzip();
    let rows = query_batches!(
        "SELECT",
        "FROM batches b
         WHERE b.project_id = $1
           AND (b.created_at, b.id) < (COALESCE($2::timestamptz, 'infinity'),
                                       COALESCE($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         ORDER BY b.created_at DESC, b.id DESC LIMIT $4",
        tx.project_id().0,
        created_at,
        id,
        one_more(listing.limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, listing.limit, BatchRow::read)
}

/// How many of the project's batches are not final.
pub async fn count_open(tx: &mut TenantTx) -> Result<u64, StoreError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM batches
           WHERE project_id = $1 AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"#,
        tx.project_id().0
    )
    .fetch_one(tx.connection())
    .await?;
    crate::number::from_bigint("count of batches", count)
}

/// Stores where a batch stands. A final status ends its turn. What its lines count up is left alone: see
/// [`lines::record`].
pub async fn save(tx: &mut TenantTx, batch: &Batch) -> Result<(), StoreError> {
    let times = &batch.times;
    let model = batch.model.as_deref().map(nul::replace);
    sqlx::query!(
        "UPDATE batches
         SET status = $3, model = $4, errors = $5, n_total = $6, output_file = $7, error_file = $8,
             in_progress_at = $9, finalizing_at = $10, completed_at = $11, failed_at = $12, expired_at = $13,
             cancelling_at = $14, cancelled_at = $15,
             lease_token = CASE WHEN $16 THEN NULL ELSE lease_token END,
             lease_expires_at = CASE WHEN $16 THEN NULL ELSE lease_expires_at END
         WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        batch.id.0,
        batch.status.as_str(),
        model.as_deref(),
        batch.errors.as_ref().map(Json) as _,
        to_bigint("total", batch.counts.total)?,
        batch.output_file.map(|id| id.0),
        batch.error_file.map(|id| id.0),
        times.in_progress_at,
        times.finalizing_at,
        times.completed_at,
        times.failed_at,
        times.expired_at,
        times.cancelling_at,
        times.cancelled_at,
        batch.status.is_final(),
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

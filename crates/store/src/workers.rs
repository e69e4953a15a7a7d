//! The processes that claim jobs, as they tell of themselves: what decides whether somebody can take a job at all.

use std::time::Duration;

use domain::{Needs, WorkerKind};
use sqlx::types::Uuid;

use crate::number::to_bigint;
use crate::tx::Connection;
use crate::{StoreError, TenantTx, WorkerTx};

/// A worker that was not heard of for so long is taken to be gone, even one that took its leave: another may be on its way
/// to take its place. They speak every few seconds.
pub const GONE_AFTER: Duration = Duration::from_mins(2);

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Of the process: names repeat.
    pub id: Uuid,
    /// For the operator.
    pub name: String,
    /// What it has.
    pub kind: WorkerKind,
}

impl Worker {
    /// A process that starts now.
    pub fn new(name: impl Into<String>, kind: WorkerKind) -> Self {
        Self {
            id: Uuid::now_v7(),
            name: name.into(),
            kind,
        }
    }
}

/// Says that the worker is there, and forgets those that have been gone for long.
pub async fn announce(tx: &mut WorkerTx, worker: &Worker) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO workers (id, name, device, memory_bytes) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO UPDATE SET memory_bytes = EXCLUDED.memory_bytes",
        worker.id,
        worker.name,
        worker.kind.device.as_str(),
        to_bigint("memory_bytes", worker.kind.memory_bytes)?,
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!("DELETE FROM workers WHERE updated_at < now() - interval '1 day'")
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Says that the worker goes.
pub async fn leave(tx: &mut WorkerTx, worker: &Worker) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE workers SET left_at = now() WHERE id = $1",
        worker.id
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Whether there are workers and none of them could take a job with these needs. With none at all nobody knows yet.
pub async fn all_too_small(tx: &mut TenantTx, needs: Needs) -> Result<bool, StoreError> {
    Ok(fit(tx, needs).await? == Some(false))
}

/// Whether there is a worker that could take a job with these needs.
pub async fn some_fits(tx: &mut TenantTx, needs: Needs) -> Result<bool, StoreError> {
    Ok(fit(tx, needs).await? == Some(true))
}

/// `None` without any worker.
async fn fit(tx: &mut TenantTx, needs: Needs) -> Result<Option<bool>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT bool_or(($1::text IS NULL OR device = $1) AND memory_bytes >= $2)
         FROM workers WHERE updated_at > now() - make_interval(secs => $3)",
        needs.device.map(domain::DeviceKind::as_str),
        to_bigint("needs_memory_bytes", needs.memory_bytes)?,
        GONE_AFTER.as_secs_f64(),
    )
    .fetch_one(tx.connection())
    .await?)
}

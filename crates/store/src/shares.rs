//! What part of the workers a project gets. How many it may have at once is one of its limits, in [`crate::quotas`].

use domain::ProjectId;

use crate::tx::Connection;
use crate::{OperatorTx, StoreError};

/// A project's share of the workers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Of two projects that both wait, one of weight 2 gets twice the jobs of one of weight 1. From 0.001 to 1000.
    pub weight: f64,
    /// A project waits as long as one of higher priority has a job that may be claimed.
    pub priority: i32,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: 1.0,
            priority: 0,
        }
    }
}

/// Sets the project's share. It holds from the next claim on; jobs that run are left alone.
pub async fn set(
    tx: &mut OperatorTx,
    project_id: ProjectId,
    share: Share,
) -> Result<(), StoreError> {
    // The clock goes on from now: what was kept from a project by its old share is not made up for.
    sqlx::query!(
        "INSERT INTO project_queues (project_id, weight, priority) VALUES ($1, $2, $3)
         ON CONFLICT (project_id) DO UPDATE
         SET weight = EXCLUDED.weight, priority = EXCLUDED.priority,
             virtual_time = greatest(
                 project_queues.virtual_time, (SELECT max(served_virtual_time) FROM project_queues)
             ),
             updated_at = now()",
        project_id.0,
        share.weight,
        share.priority,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The project's share.
pub async fn get(tx: &mut OperatorTx, project_id: ProjectId) -> Result<Share, StoreError> {
    let row = sqlx::query!(
        "SELECT weight, priority FROM project_queues WHERE project_id = $1",
        project_id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map_or_else(Share::default, |row| Share {
        weight: row.weight,
        priority: row.priority,
    }))
}

//! What a project may use at most, and what it uses.
//!
//! Every limit is checked in the transaction that would go beyond it, after its own rows are written: the check counts
//! them too, and a refusal undoes them. Two transactions of one project cannot both take the last place, because each
//! holds a lock when it counts: of the project's row in `project_usage` for bytes, of the project's jobs for jobs.
//! Requests and tokens per minute are counted in the API's memory; here is only how many there may be.

use domain::{OrgId, ProjectId};

use crate::number::{from_bigint, to_optional_bigint};
use crate::tx::{AdminTx, Connection};
use crate::{StoreError, TenantTx};

mod exceeded;
mod jobs;
mod storage;

pub use exceeded::QuotaExceeded;
pub use jobs::{admit_job, admit_resumed};
pub use storage::{Room, admit_bytes, left, room, storage_bytes};

/// The limits of one project. None: there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Jobs that wait for a worker.
    pub max_queued_jobs: Option<u64>,
    /// Bytes of all its files, and of the parts of its pending uploads.
    pub max_storage_bytes: Option<u64>,
    /// Tokens trained from midnight to midnight, UTC.
    pub max_trained_tokens_per_day: Option<u64>,
    /// Requests with the project's keys.
    pub max_requests_per_minute: Option<u64>,
    /// Tokens of prompts and answers.
    pub max_tokens_per_minute: Option<u64>,
}

/// The limits of the transaction's project.
pub async fn own(tx: &mut TenantTx) -> Result<Quotas, StoreError> {
    let row = sqlx::query_as!(
        QuotaRow,
        "SELECT max_queued_jobs, max_storage_bytes, max_trained_tokens_per_day, max_requests_per_minute,
                max_tokens_per_minute
         FROM project_quotas WHERE project_id = $1",
        tx.project_id().0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map_or(Ok(Quotas::default()), QuotaRow::read)
}

/// The limits of a project of the organization.
pub async fn find(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
) -> Result<Quotas, StoreError> {
    let row = sqlx::query_as!(
        QuotaRow,
        "SELECT max_queued_jobs, max_storage_bytes, max_trained_tokens_per_day, max_requests_per_minute,
                max_tokens_per_minute
         FROM project_quotas WHERE org_id = $1 AND project_id = $2",
        org_id.0,
        project_id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map_or(Ok(Quotas::default()), QuotaRow::read)
}

/// Sets every limit of a project of the organization.
///
/// # Errors
/// [`StoreError::MissingReference`] if the organization has no such project.
pub async fn set(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    quotas: &Quotas,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO project_quotas (org_id, project_id, max_queued_jobs, max_storage_bytes,
             max_trained_tokens_per_day, max_requests_per_minute, max_tokens_per_minute)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (org_id, project_id) DO UPDATE
         SET max_queued_jobs = $3, max_storage_bytes = $4, max_trained_tokens_per_day = $5,
             max_requests_per_minute = $6, max_tokens_per_minute = $7",
        org_id.0,
        project_id.0,
        to_optional_bigint("max_queued_jobs", quotas.max_queued_jobs)?,
        to_optional_bigint("max_storage_bytes", quotas.max_storage_bytes)?,
        to_optional_bigint(
            "max_trained_tokens_per_day",
            quotas.max_trained_tokens_per_day
        )?,
        to_optional_bigint("max_requests_per_minute", quotas.max_requests_per_minute)?,
        to_optional_bigint("max_tokens_per_minute", quotas.max_tokens_per_minute)?,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

#[expect(clippy::struct_field_names, reason = "they are the columns")]
struct QuotaRow {
    max_queued_jobs: Option<i64>,
    max_storage_bytes: Option<i64>,
    max_trained_tokens_per_day: Option<i64>,
    max_requests_per_minute: Option<i64>,
    max_tokens_per_minute: Option<i64>,
}

impl QuotaRow {
    fn read(self) -> Result<Quotas, StoreError> {
        let limit = |number: Option<i64>| number.map(|n| from_bigint("limit", n)).transpose();
        Ok(Quotas {
            max_queued_jobs: limit(self.max_queued_jobs)?,
            max_storage_bytes: limit(self.max_storage_bytes)?,
            max_trained_tokens_per_day: limit(self.max_trained_tokens_per_day)?,
            max_requests_per_minute: limit(self.max_requests_per_minute)?,
            max_tokens_per_minute: limit(self.max_tokens_per_minute)?,
        })
    }
}

//! What a project may use at most, and what it uses.
//!
//! Every limit is checked in the transaction that would go beyond it, after its own rows are written: the check counts
//! them too, and a refusal undoes them. Two transactions of one project cannot both take the last place, because each
//! holds a lock when it counts: of the project's row in `project_usage` for bytes, of the project's jobs for jobs.
//! Requests and tokens per minute are counted in the API's memory; here is only how many there may be.
//!
//! Each limit can be set twice, by the organization's administrators and, as a ceiling, by the operator. The lower one
//! counts.

use domain::{OrgId, ProjectId};

use crate::number::{from_bigint, to_optional_bigint};
use crate::tx::{AdminTx, Connection};
use crate::{OperatorTx, StoreError, TenantTx};

mod exceeded;
mod jobs;
mod storage;

pub use exceeded::QuotaExceeded;
pub use jobs::{admit_job, admit_resumed};
pub use storage::{Room, admit_bytes, left, room, storage_bytes};

/// Limits of one project. None: there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Jobs at workers at the same time, at most 2,147,483,647. Claims hold it, and nothing is refused for it.
    pub max_running_jobs: Option<u64>,
    /// Jobs that wait for a worker.
    pub max_queued_jobs: Option<u64>,
    /// Bytes of all its files, of the parts of its pending uploads, and of its models and their checkpoints.
    pub max_storage_bytes: Option<u64>,
    /// Tokens trained from midnight to midnight, UTC.
    pub max_trained_tokens_per_day: Option<u64>,
    /// Requests with the project's keys.
    pub max_requests_per_minute: Option<u64>,
    /// Tokens of prompts and answers.
    pub max_tokens_per_minute: Option<u64>,
}

impl Quotas {
    /// Of each limit the lower one.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self {
            max_running_jobs: least(self.max_running_jobs, other.max_running_jobs),
            max_queued_jobs: least(self.max_queued_jobs, other.max_queued_jobs),
            max_storage_bytes: least(self.max_storage_bytes, other.max_storage_bytes),
            max_trained_tokens_per_day: least(
                self.max_trained_tokens_per_day,
                other.max_trained_tokens_per_day,
            ),
            max_requests_per_minute: least(
                self.max_requests_per_minute,
                other.max_requests_per_minute,
            ),
            max_tokens_per_minute: least(self.max_tokens_per_minute, other.max_tokens_per_minute),
        }
    }
}

/// Who set a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetBy {
    Organization,
    Operator,
}

impl SetBy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Operator => "operator",
        }
    }
}

/// The limits of the transaction's project that count, whoever set them.
pub async fn own(tx: &mut TenantTx) -> Result<Quotas, StoreError> {
    let row = sqlx::query_as!(
        QuotaRow,
        "SELECT min(max_running_jobs) AS max_running_jobs, min(max_queued_jobs) AS max_queued_jobs,
                min(max_storage_bytes) AS max_storage_bytes,
                min(max_trained_tokens_per_day) AS max_trained_tokens_per_day,
                min(max_requests_per_minute) AS max_requests_per_minute,
                min(max_tokens_per_minute) AS max_tokens_per_minute
         FROM project_quotas WHERE project_id = $1",
        tx.project_id().0
    )
    .fetch_one(tx.connection())
    .await?;
    row.read()
}

/// What the administrators of the organization have set for its project.
pub async fn find(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
) -> Result<Quotas, StoreError> {
    find_set_by(tx, org_id, project_id, SetBy::Organization).await
}

/// What the operator has set for a project of the organization.
pub async fn ceiling(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
) -> Result<Quotas, StoreError> {
    find_set_by(tx, org_id, project_id, SetBy::Operator).await
}

async fn find_set_by(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    set_by: SetBy,
) -> Result<Quotas, StoreError> {
    let row = sqlx::query_as!(
        QuotaRow,
        "SELECT max_running_jobs, max_queued_jobs, max_storage_bytes, max_trained_tokens_per_day,
                max_requests_per_minute, max_tokens_per_minute
         FROM project_quotas WHERE org_id = $1 AND project_id = $2 AND set_by = $3",
        org_id.0,
        project_id.0,
        set_by.as_str()
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map_or(Ok(Quotas::default()), QuotaRow::read)
}

/// Sets every limit of the organization's administrators for its project.
///
/// # Errors
/// [`StoreError::MissingReference`] if the organization has no such project.
pub async fn set(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    quotas: &Quotas,
) -> Result<(), StoreError> {
    write(tx, org_id, project_id, SetBy::Organization, quotas).await
}

/// Sets every limit of the operator for a project of the organization.
///
/// # Errors
/// As [`set`].
pub async fn set_ceiling(
    tx: &mut OperatorTx,
    org_id: OrgId,
    project_id: ProjectId,
    quotas: &Quotas,
) -> Result<(), StoreError> {
    write(tx, org_id, project_id, SetBy::Operator, quotas).await
}

async fn write(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    set_by: SetBy,
    quotas: &Quotas,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO project_quotas (org_id, project_id, set_by, max_running_jobs, max_queued_jobs,
             max_storage_bytes, max_trained_tokens_per_day, max_requests_per_minute, max_tokens_per_minute)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (org_id, project_id, set_by) DO UPDATE
         SET max_running_jobs = $4, max_queued_jobs = $5, max_storage_bytes = $6,
             max_trained_tokens_per_day = $7, max_requests_per_minute = $8, max_tokens_per_minute = $9",
        org_id.0,
        project_id.0,
        set_by.as_str(),
        to_optional_bigint("max_running_jobs", quotas.max_running_jobs)?,
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
    max_running_jobs: Option<i64>,
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
            max_running_jobs: limit(self.max_running_jobs)?,
            max_queued_jobs: limit(self.max_queued_jobs)?,
            max_storage_bytes: limit(self.max_storage_bytes)?,
            max_trained_tokens_per_day: limit(self.max_trained_tokens_per_day)?,
            max_requests_per_minute: limit(self.max_requests_per_minute)?,
            max_tokens_per_minute: limit(self.max_tokens_per_minute)?,
        })
    }
}

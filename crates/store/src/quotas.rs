//! What a project may use at most, and what it uses.
//!
//! Every limit is checked in the transaction that would go beyond it, after its own rows are written: the check counts
//! them too, and a refusal undoes them. Two transactions of one project cannot both take the last place, because each
//! holds a lock when it counts: of the project's row in `project_usage` for bytes, of the project's jobs for jobs.
//! Requests and tokens per minute are counted in the API's memory; here is only how many there may be.

use domain::{Job, JobId, OrgId, ProjectId};
use time::OffsetDateTime;

use crate::number::{from_bigint, to_bigint, to_optional_bigint};
use crate::tx::{AdminTx, Connection};
use crate::{StoreError, TenantTx};

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

/// The limit that a request would go beyond. The message says what it is, where the project stands and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// Of jobs that wait.
    #[error(
        "This project may have {max} jobs waiting (max_queued_jobs), and {waiting} wait already. Try again when some of \
         them have started, cancel some, or ask your administrator for more."
    )]
    QueuedJobs {
        /// The limit.
        max: u64,
        /// Without the one that was refused.
        waiting: u64,
    },
    /// Of stored bytes.
    #[error(
        "This project may store {max} bytes (max_storage_bytes) and stores {used}; what was sent does not fit beside them. \
         Delete files that are no longer needed, or ask your administrator for more."
    )]
    StorageBytes {
        /// The limit.
        max: u64,
        /// Without what was refused.
        used: u64,
    },
    /// Of trained tokens.
    #[error(
        "This project may train {max} tokens a day (max_trained_tokens_per_day). {used} of them were trained since \
         midnight UTC or are expected of jobs that have not finished, and this job is expected to take {wanted}. Try again \
         tomorrow, train on fewer rows or epochs, or ask your administrator for more."
    )]
    TrainedTokens {
        /// The limit.
        max: u64,
        /// Trained today, and expected of unfinished jobs.
        used: u64,
        /// Expected of the one that was refused.
        wanted: u64,
    },
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

/// Whether a job that this transaction has just stored may be added. `n_tokens` is what it is expected to train.
///
/// # Errors
/// [`StoreError::Quota`] if a limit is exceeded with it.
pub async fn admit_job(
    tx: &mut TenantTx,
    job: &Job,
    n_tokens: u64,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let quotas = own(tx).await?;
    if quotas.max_queued_jobs.is_none() && quotas.max_trained_tokens_per_day.is_none() {
        return Ok(());
    }
    // Whoever counts next sees this job, or does not find it because it was refused.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('attune quota ' || $1::text, 0))",
        tx.project_id().to_string()
    )
    .execute(tx.connection())
    .await?;
    if let Some(max) = quotas.max_queued_jobs {
        let waiting = waiting_jobs(tx).await?;
        if waiting > max {
            let waiting = waiting - 1;
            return Err(QuotaExceeded::QueuedJobs { max, waiting }.into());
        }
    }
    if let Some(max) = quotas.max_trained_tokens_per_day {
        let used = expect_tokens(tx, job.id, n_tokens, now).await?;
        if used > max {
            return Err(QuotaExceeded::TrainedTokens {
                max,
                used: used - n_tokens,
                wanted: n_tokens,
            }
            .into());
        }
    }
    Ok(())
}

async fn waiting_jobs(tx: &mut TenantTx) -> Result<u64, StoreError> {
    let waiting = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM jobs
         WHERE project_id = $1 AND lease_token IS NULL AND status IN ('validating_files', 'queued')"#,
        tx.project_id().0
    )
    .fetch_one(tx.connection())
    .await?;
    from_bigint("number of jobs", waiting)
}

/// Notes what a job is expected to train, and adds up what counts towards today: of a job that finished today, what it
/// trained, also where it failed or was cancelled; of one that has not finished, what is expected of it. A job that was
/// made before the project had a limit counts once it has finished.
async fn expect_tokens(
    tx: &mut TenantTx,
    job_id: JobId,
    n_tokens: u64,
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    let project_id = tx.project_id().0;
    sqlx::query!(
        "DELETE FROM job_token_estimates e USING jobs j
         WHERE e.project_id = $1 AND j.project_id = e.project_id AND j.id = e.job_id AND j.finished_at IS NOT NULL",
        project_id
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "INSERT INTO job_token_estimates (project_id, job_id, n_tokens) VALUES ($1, $2, $3)",
        project_id,
        job_id.0,
        to_bigint("n_tokens", n_tokens)?
    )
    .execute(tx.connection())
    .await?;
    let midnight = now
        .to_offset(time::UtcOffset::UTC)
        .replace_time(time::Time::MIDNIGHT);
    let used = sqlx::query_scalar!(
        r#"SELECT LEAST(9223372036854775807, (
             SELECT COALESCE(sum(COALESCE(j.trained_tokens, (
                 SELECT sum(m.n_tokens) FROM job_metrics m WHERE m.project_id = j.project_id AND m.job_id = j.id
             ), 0)), 0)
             FROM jobs j WHERE j.project_id = $1 AND j.finished_at >= $2
         ) + (
             SELECT COALESCE(sum(e.n_tokens), 0) FROM job_token_estimates e WHERE e.project_id = $1
         ))::bigint AS "used!""#,
        project_id,
        midnight
    )
    .fetch_one(tx.connection())
    .await?;
    from_bigint("number of tokens", used)
}

/// Whether the files that this transaction has stored may stay.
///
/// # Errors
/// [`StoreError::Quota`] if the project stores more than it may with them. `added` is their size.
pub async fn admit_bytes(tx: &mut TenantTx, added: u64) -> Result<(), StoreError> {
    let Some(max) = own(tx).await?.max_storage_bytes else {
        return Ok(());
    };
    // Exact: our own write locked the row.
    let used = storage_bytes(tx).await?;
    if used <= max {
        return Ok(());
    }
    let used = used.saturating_sub(added);
    Err(QuotaExceeded::StorageBytes { max, used }.into())
}

/// How many more bytes fit, before anything was stored. None: any number.
///
/// # Errors
/// [`StoreError::Quota`] if not one does, or not as many as `wanted`.
pub async fn room(tx: &mut TenantTx, wanted: u64) -> Result<Option<Room>, StoreError> {
    let Some(room) = left(tx).await? else {
        return Ok(None);
    };
    if room.bytes() < wanted.max(1) {
        return Err(room.exceeded().into());
    }
    Ok(Some(room))
}

/// The same, also where there is no room at all.
pub async fn left(tx: &mut TenantTx) -> Result<Option<Room>, StoreError> {
    let Some(max) = own(tx).await?.max_storage_bytes else {
        return Ok(None);
    };
    let used = storage_bytes(tx).await?;
    Ok(Some(Room { max, used }))
}

/// What is left of what a project may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    max: u64,
    used: u64,
}

impl Room {
    /// How many bytes fit.
    pub fn bytes(&self) -> u64 {
        self.max.saturating_sub(self.used)
    }

    /// What is left when so many bytes are put into it.
    #[must_use]
    pub fn with(self, n_bytes: u64) -> Self {
        let used = self.used.saturating_add(n_bytes);
        Self { used, ..self }
    }

    /// What to say to whoever needs more.
    pub fn exceeded(&self) -> QuotaExceeded {
        QuotaExceeded::StorageBytes {
            max: self.max,
            used: self.used,
        }
    }
}

/// Bytes of all files of the transaction's project, and of the parts of its pending uploads.
pub async fn storage_bytes(tx: &mut TenantTx) -> Result<u64, StoreError> {
    let bytes = sqlx::query_scalar!(
        "SELECT storage_bytes FROM project_usage WHERE project_id = $1",
        tx.project_id().0
    )
    .fetch_optional(tx.connection())
    .await?;
    from_bigint("number of bytes", bytes.unwrap_or(0))
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

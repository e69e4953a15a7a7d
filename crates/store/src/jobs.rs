//! Fine-tuning jobs as their tenant sees them. The queue's side of the same table is in [`crate::queue`] and
//! [`crate::lease`].

use std::collections::BTreeMap;

use domain::limits::MAX_ATTEMPTS;
use domain::{DeviceKind, Job, JobId, JobStatus, Needs, WebhookEventType};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::number::{to_bigint, to_optional_bigint};
use crate::page::one_more;
use crate::tx::Connection;
use crate::{Page, StoreError, TenantTx, nul, webhooks};

mod row;

pub(crate) use row::{JobRow, query_jobs};

/// What the client asked for, word for word: what it is shown again.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRequest {
    /// OpenAI's hyperparameters and ours.
    pub hyperparameters: Value,
    /// OpenAI's `method`.
    pub method: Value,
    /// OpenAI's `integrations`.
    pub integrations: Value,
}

/// A job and what was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    /// The job.
    pub job: Job,
    /// What the client asked for.
    pub request: JobRequest,
}

/// Which jobs to list, by the client's notes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MetadataFilter {
    /// All.
    #[default]
    Any,
    /// Those without notes.
    None,
    /// Those that carry all of these.
    Contains(BTreeMap<String, String>),
}

/// What to list.
#[derive(Debug, Clone)]
pub struct JobListing {
    /// Only jobs older than this one.
    pub after: Option<JobId>,
    /// So many at most.
    pub limit: u32,
    /// Only jobs with these notes.
    pub metadata: MetadataFilter,
}

/// Stores a new job that any worker may take and, with the same row, puts it into the queue.
///
/// # Errors
/// As [`create_needing`].
pub async fn create(tx: &mut TenantTx, job: &Job, request: &JobRequest) -> Result<(), StoreError> {
    create_needing(tx, job, request, Needs::default()).await
}

/// Stores a new job and, with the same row, puts it into the queue for the workers that have what it needs.
///
/// # Errors
/// [`StoreError::NulCharacter`] names the field that cannot be stored; [`StoreError::MissingReference`] if the base
/// model is gone.
pub async fn create_needing(
    tx: &mut TenantTx,
    job: &Job,
    request: &JobRequest,
    needs: Needs,
) -> Result<(), StoreError> {
    refuse_nul(job, request)?;
    sqlx::query!(
        "INSERT INTO jobs (id, project_id, org_id, status, model, base_model, training_file,
             validation_file, suffix, config, hyperparameters, method, integrations, metadata, model_name,
             max_attempts, created_at, needs_device, needs_memory_bytes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
        job.id.0,
        job.project_id.0,
        job.org_id.0,
        job.status.as_str(),
        job.model,
        job.base_model,
        job.training_file.0,
        job.validation_file.map(|id| id.0),
        job.suffix,
        Json(&job.config) as _,
        request.hyperparameters,
        request.method,
        request.integrations,
        job.metadata.as_ref().map(Json) as _,
        job.model_name,
        MAX_ATTEMPTS,
        job.created_at,
        needs.device.map_or("any", DeviceKind::as_str),
        to_bigint("needs_memory_bytes", needs.memory_bytes)?,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The job with this id.
pub async fn find(tx: &mut TenantTx, id: JobId) -> Result<Option<StoredJob>, StoreError> {
    let row = query_jobs!(
        "SELECT",
        "FROM jobs j WHERE j.project_id = $1 AND j.id = $2",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(JobRow::read).transpose()
}

/// The job with this id, which nobody else can change before the transaction ends.
pub async fn find_for_update(
    tx: &mut TenantTx,
    id: JobId,
) -> Result<Option<StoredJob>, StoreError> {
    // NO KEY: a worker may go on appending rows that refer to the job meanwhile.
    let row = query_jobs!(
        "SELECT",
        "FROM jobs j WHERE j.project_id = $1 AND j.id = $2 FOR NO KEY UPDATE",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(JobRow::read).transpose()
}

/// One page of the project's jobs, newest first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not a job of the project.
pub async fn list(tx: &mut TenantTx, listing: &JobListing) -> Result<Page<StoredJob>, StoreError> {
    let cursor = match listing.after {
        Some(after) => Some(find(tx, after).await?.ok_or(StoreError::UnknownCursor)?.job),
        None => None,
    };
    let (created_at, id) = cursor.map(|job| (job.created_at, job.id.0)).unzip();
    let (contains, without) = match &listing.metadata {
        MetadataFilter::Any => (None, false),
        MetadataFilter::None => (None, true),
        MetadataFilter::Contains(pairs) => (Some(metadata_value(pairs)?), false),
    };
    // Without a cursor the comparison is with the end of all values, so that the index serves both cases.
    let rows = query_jobs!(
        "SELECT",
        "FROM jobs j
         WHERE j.project_id = $1
           AND (j.created_at, j.id) < (COALESCE($2::timestamptz, 'infinity'),
                                       COALESCE($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
           AND ($4::jsonb IS NULL OR j.metadata @> $4)
           AND (NOT $5 OR COALESCE(j.metadata, '{}') = '{}')
         ORDER BY j.created_at DESC, j.id DESC LIMIT $6",
        tx.project_id().0,
        created_at,
        id,
        contains,
        without,
        one_more(listing.limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, listing.limit, JobRow::read)
}

/// Stores where a job stands. A final status ends the lease, so that the worker's next write or heartbeat is refused.
///
/// For whoever read the job with [`find_for_update`] in the same transaction. A worker uses [`crate::lease::save`].
pub async fn save(tx: &mut TenantTx, job: &Job) -> Result<(), StoreError> {
    write(tx.connection(), job).await
}

pub(crate) async fn write(connection: &mut PgConnection, job: &Job) -> Result<(), StoreError> {
    let error = job.error.as_ref().map(serde_json::to_value).transpose();
    let error = error.map_err(|error| StoreError::corrupt("error of a job", error))?;
    let error = error.as_ref().map(nul::replace_json);
    let done = sqlx::query!(
        "UPDATE jobs
         SET status = $3, trained_tokens = $4, result_file = $5, error = $6, finished_at = $7,
             estimated_finish = $8, data = $10,
             lease_token = CASE WHEN $9 THEN NULL ELSE lease_token END,
             lease_expires_at = CASE WHEN $9 THEN NULL ELSE lease_expires_at END
         WHERE project_id = $1 AND id = $2",
        job.project_id.0,
        job.id.0,
        job.status.as_str(),
        to_optional_bigint("trained_tokens", job.trained_tokens)?,
        job.result_file.map(|id| id.0),
        error.as_deref(),
        job.finished_at,
        job.estimated_finish,
        job.status.is_final(),
        job.data.as_ref().map(Json) as _,
    )
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() != 1 {
        return Err(sqlx::Error::RowNotFound.into());
    }
    tell(connection, job).await
}

/// Every way in which a job ends comes by here, so nobody can end one in silence. No status follows on a final one, so it
/// is told once.
async fn tell(connection: &mut PgConnection, job: &Job) -> Result<(), StoreError> {
    let event_type = match job.status {
        JobStatus::Succeeded => WebhookEventType::JobSucceeded,
        JobStatus::Failed => WebhookEventType::JobFailed,
        JobStatus::Cancelled => WebhookEventType::JobCancelled,
        _ => return Ok(()),
    };
    let ended_at = job.finished_at.unwrap_or(job.created_at);
    let object_ids = [job.id.to_string()];
    webhooks::insert(
        connection,
        job.project_id,
        event_type,
        &object_ids,
        ended_at,
    )
    .await
}

/// The same for many at once, of which each was cancelled.
pub(crate) async fn tell_cancelled(
    tx: &mut TenantTx,
    ids: &[JobId],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let object_ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let (project_id, event_type) = (tx.project_id(), WebhookEventType::JobCancelled);
    webhooks::insert(tx.connection(), project_id, event_type, &object_ids, now).await
}

fn refuse_nul(job: &Job, request: &JobRequest) -> Result<(), StoreError> {
    nul::refuse("model", &job.model)?;
    nul::refuse_optional("suffix", job.suffix.as_deref())?;
    if let Some(pairs) = &job.metadata {
        metadata_value(pairs)?;
    }
    nul::refuse_json("hyperparameters", &request.hyperparameters)?;
    nul::refuse_json("method", &request.method)?;
    nul::refuse_json("integrations", &request.integrations)
}

fn metadata_value(pairs: &BTreeMap<String, String>) -> Result<Value, StoreError> {
    let pairs = pairs
        .iter()
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    let value = Value::Object(pairs.collect());
    nul::refuse_json("metadata", &value)?;
    Ok(value)
}

//! Checkpoints: where a run can be taken up again, and models of their own.

use std::collections::BTreeMap;

use domain::{CheckpointId, FineTunedModelId, JobId};
use serde::{Deserialize, Serialize};
use sqlx::types::{Json, Uuid};
use time::OffsetDateTime;

use crate::lease::{self, Lease};
use crate::models::{self, NewModel};
use crate::number::{from_bigint, to_bigint};
use crate::page::one_more;
use crate::tx::Connection;
use crate::{Page, StoreError, TenantTx};

/// OpenAI's seven numbers of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMetrics {
    /// The step.
    pub step: u64,
    /// Mean training loss of that step.
    pub train_loss: f64,
    /// Training accuracy of that step.
    pub train_mean_token_accuracy: f64,
    /// Validation loss, if there is a validation file.
    pub valid_loss: Option<f64>,
    /// Validation accuracy.
    pub valid_mean_token_accuracy: Option<f64>,
    /// Validation loss over the whole file.
    pub full_valid_loss: Option<f64>,
    /// Validation accuracy over the whole file.
    pub full_valid_mean_token_accuracy: Option<f64>,
}

/// A checkpoint whose objects are all stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCheckpoint {
    /// The last step that went into it.
    pub step: u64,
    /// Where its objects are. Carries the attempt.
    pub object_prefix: String,
    /// Its numbers.
    pub metrics: CheckpointMetrics,
    /// File name to SHA-256 in hexadecimal digits.
    pub manifest: BTreeMap<String, String>,
    /// Of all its objects.
    pub size_bytes: u64,
    /// When it was written.
    pub created_at: OffsetDateTime,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// The job's.
    pub job_id: JobId,
    /// The attempt that wrote it.
    pub attempt: i32,
    /// The last step that went into it.
    pub step: u64,
    /// Where its objects are.
    pub object_prefix: String,
    /// Its numbers.
    pub metrics: CheckpointMetrics,
    /// File name to SHA-256 in hexadecimal digits.
    pub manifest: BTreeMap<String, String>,
    /// When it was written.
    pub created_at: OffsetDateTime,
}

/// Stores a checkpoint and makes it a model that answers under the job's name with `:ckpt-step-{n}`.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the attempt no longer holds the job.
pub async fn create(
    tx: &mut TenantTx,
    lease: &Lease,
    checkpoint: &NewCheckpoint,
) -> Result<Checkpoint, StoreError> {
    lease::hold(tx, lease).await?;
    // The step is there already when a commit's answer was lost and the worker tries again.
    let row = sqlx::query_as!(
        CheckpointRow,
        r#"INSERT INTO checkpoints (id, project_id, job_id, attempt, step, object_prefix, metrics, manifest,
               created_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
           ON CONFLICT (project_id, job_id, step) DO UPDATE
           SET attempt = EXCLUDED.attempt, object_prefix = EXCLUDED.object_prefix,
               metrics = EXCLUDED.metrics, manifest = EXCLUDED.manifest
           RETURNING id, job_id, attempt, step, object_prefix, metrics AS "metrics: _",
                     manifest AS "manifest: _", created_at"#,
        CheckpointId::new().0,
        lease.project_id.0,
        lease.job_id.0,
        lease.attempt,
        to_bigint("step", checkpoint.step)?,
        checkpoint.object_prefix,
        Json(&checkpoint.metrics) as _,
        Json(&checkpoint.manifest) as _,
        checkpoint.created_at,
    )
    .fetch_one(tx.connection())
    .await?;
    let model = NewModel {
        id: FineTunedModelId::new(),
        checkpoint_step: Some(checkpoint.step),
        adapter_prefix: &checkpoint.object_prefix,
        size_bytes: checkpoint.size_bytes,
        created_at: checkpoint.created_at,
    };
    models::insert(tx, lease.job_id, &model).await?;
    row.read()
}

/// One page of a job's checkpoints, highest step first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not a checkpoint of the job.
pub async fn list(
    tx: &mut TenantTx,
    job_id: JobId,
    after: Option<CheckpointId>,
    limit: u32,
) -> Result<Page<Checkpoint>, StoreError> {
    let before_step = match after {
        Some(after) => step_of(tx, job_id, after)
            .await?
            .ok_or(StoreError::UnknownCursor)?,
        None => i64::MAX,
    };
    let rows = sqlx::query_as!(
        CheckpointRow,
        r#"SELECT id, job_id, attempt, step, object_prefix, metrics AS "metrics: _",
                  manifest AS "manifest: _", created_at
           FROM checkpoints WHERE project_id = $1 AND job_id = $2 AND step < $3
           ORDER BY step DESC LIMIT $4"#,
        tx.project_id().0,
        job_id.0,
        before_step,
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, CheckpointRow::read)
}

/// The checkpoint with the highest step: where the next attempt begins.
pub async fn latest(tx: &mut TenantTx, job_id: JobId) -> Result<Option<Checkpoint>, StoreError> {
    Ok(list(tx, job_id, None, 1).await?.data.pop())
}

async fn step_of(
    tx: &mut TenantTx,
    job_id: JobId,
    id: CheckpointId,
) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT step FROM checkpoints WHERE project_id = $1 AND job_id = $2 AND id = $3",
        tx.project_id().0,
        job_id.0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?)
}

struct CheckpointRow {
    id: Uuid,
    job_id: Uuid,
    attempt: i32,
    step: i64,
    object_prefix: String,
    metrics: Json<CheckpointMetrics>,
    manifest: Json<BTreeMap<String, String>>,
    created_at: OffsetDateTime,
}

impl CheckpointRow {
    fn read(self) -> Result<Checkpoint, StoreError> {
        Ok(Checkpoint {
            id: CheckpointId(self.id),
            job_id: JobId(self.job_id),
            attempt: self.attempt,
            step: from_bigint("step", self.step)?,
            object_prefix: self.object_prefix,
            metrics: self.metrics.0,
            manifest: self.manifest.0,
            created_at: self.created_at,
        })
    }
}

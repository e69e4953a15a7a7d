//! Fine-tuned models: what answers to a name that begins with `ft:`. A job's checkpoints are models too.

use domain::model_name::{FINE_TUNED_PREFIX, checkpoint_name};
use domain::{BaseModelId, FineTunedModelId, JobId, ProjectId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::base_models::{self, BaseModel};
use crate::deletions::{self, Target};
use crate::lease::{self, Lease};
use crate::number::{from_bigint, to_bigint, to_optional_bigint};
use crate::tx::Connection;
use crate::{StoreError, TenantTx, nul};

/// A model that a job made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FineTunedModel {
    /// Its id.
    pub id: FineTunedModelId,
    /// The tenant.
    pub project_id: ProjectId,
    /// As clients write it.
    pub name: String,
    /// The job that made it.
    pub job_id: JobId,
    /// The model it adapts.
    pub base_model_id: BaseModelId,
    /// That model's name.
    pub base_model: String,
    /// Where the adapter's objects are.
    pub adapter_prefix: String,
    /// The step, for a checkpoint; none for a job's result.
    pub checkpoint_step: Option<u64>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// What a client's model name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedModel {
    /// The base model.
    pub base: BaseModel,
    /// The adapter on it, for a fine-tuned model.
    pub tuned: Option<FineTunedModel>,
}

/// Makes the job's result a model under the job's name. The worker chose `id` before it uploaded the adapter, whose
/// prefix carries it. `size_bytes` are those of all objects below the prefix.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the attempt no longer holds the job: publish before the job is saved as `succeeded`, in
/// the same transaction.
pub async fn publish(
    tx: &mut TenantTx,
    lease: &Lease,
    id: FineTunedModelId,
    adapter_prefix: &str,
    size_bytes: u64,
    now: OffsetDateTime,
) -> Result<FineTunedModel, StoreError> {
    lease::hold(tx, lease).await?;
    let model = NewModel {
        id,
        checkpoint_step: None,
        adapter_prefix,
        size_bytes,
        created_at: now,
    };
    let name = insert(tx, lease.job_id, &model).await?;
    find(tx, &name)
        .await?
        .ok_or_else(|| sqlx::Error::RowNotFound.into())
}

/// A model to be stored; its name follows from the job's.
pub(crate) struct NewModel<'a> {
    pub(crate) id: FineTunedModelId,
    pub(crate) checkpoint_step: Option<u64>,
    pub(crate) adapter_prefix: &'a str,
    pub(crate) size_bytes: u64,
    pub(crate) created_at: OffsetDateTime,
}

/// Stores a model of a job and returns its name.
pub(crate) async fn insert(
    tx: &mut TenantTx,
    job_id: JobId,
    model: &NewModel<'_>,
) -> Result<String, StoreError> {
    let project_id = tx.project_id().0;
    let job = sqlx::query!(
        "SELECT j.model_name, b.id AS base_model_id FROM jobs j JOIN base_models b ON b.name = j.base_model
         WHERE j.project_id = $1 AND j.id = $2",
        project_id,
        job_id.0
    )
    .fetch_one(tx.connection())
    .await?;
    let name = match model.checkpoint_step {
        Some(step) => checkpoint_name(&job.model_name, step),
        None => job.model_name,
    };
    // The name is there already when a commit's answer was lost and the worker tries again.
    sqlx::query!(
        "INSERT INTO fine_tuned_models (id, project_id, name, job_id, base_model_id, adapter_prefix,
             checkpoint_step, created_at, size_bytes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (name) DO UPDATE SET id = EXCLUDED.id, adapter_prefix = EXCLUDED.adapter_prefix,
             size_bytes = EXCLUDED.size_bytes",
        model.id.0,
        project_id,
        name,
        job_id.0,
        job.base_model_id,
        model.adapter_prefix,
        to_optional_bigint("step", model.checkpoint_step)?,
        model.created_at,
        to_bigint("size_bytes", model.size_bytes)?,
    )
    .execute(tx.connection())
    .await?;
    Ok(name)
}

/// The model with this name, unless it was deleted: the project's own or one that it was permitted to use. Which those
/// are is decided by row security alone.
pub async fn find(tx: &mut TenantTx, name: &str) -> Result<Option<FineTunedModel>, StoreError> {
    nul::refuse("model", name)?;
    let row = sqlx::query_as!(
        ModelRow,
        "SELECT m.id, m.project_id, m.name, m.job_id, m.base_model_id, b.name AS base_model,
                m.adapter_prefix, m.checkpoint_step, m.created_at
         FROM fine_tuned_models m JOIN base_models b ON b.id = m.base_model_id
         WHERE m.name = $1 AND m.deleted_at IS NULL",
        name
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(ModelRow::read).transpose()
}

/// Every model that the project may use, checkpoints included, newest first: its own, and those that it was permitted.
/// The list is not paged on the wire either.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<FineTunedModel>, StoreError> {
    let rows = sqlx::query_as!(
        ModelRow,
        "SELECT m.id, m.project_id, m.name, m.job_id, m.base_model_id, b.name AS base_model,
                m.adapter_prefix, m.checkpoint_step, m.created_at
         FROM fine_tuned_models m JOIN base_models b ON b.id = m.base_model_id
         WHERE m.deleted_at IS NULL AND (m.project_id = $1 OR m.id = ANY(ARRAY(
             SELECT model_id FROM checkpoint_permissions WHERE project_id = $1)))
         ORDER BY m.created_at DESC, m.id DESC",
        tx.project_id().0
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter().map(ModelRow::read).collect()
}

/// What `name` means to this tenant: a base model, one of its own models, one it was permitted, or
/// nothing.
pub async fn resolve(tx: &mut TenantTx, name: &str) -> Result<Option<ResolvedModel>, StoreError> {
    if !name.starts_with(FINE_TUNED_PREFIX) {
        let base = base_models::find_by_name(tx, name).await?;
        return Ok(base.map(|base| ResolvedModel { base, tuned: None }));
    }
    let Some(tuned) = find(tx, name).await? else {
        return Ok(None);
    };
    let base = base_models::find(tx, tuned.base_model_id).await?;
    Ok(base.map(|base| ResolvedModel {
        base,
        tuned: Some(tuned),
    }))
}

/// Deletes a model; its objects follow when the sweeper comes by, and count no more from now on. False if there is no such model.
pub async fn delete(
    tx: &mut TenantTx,
    name: &str,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    nul::refuse("model", name)?;
    let deleted = sqlx::query!(
        "UPDATE fine_tuned_models SET deleted_at = $3
         WHERE project_id = $1 AND name = $2 AND deleted_at IS NULL
         RETURNING adapter_prefix, job_id, checkpoint_step",
        tx.project_id().0,
        name,
        now
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(deleted) = deleted else {
        return Ok(false);
    };
    // A job that still runs may have to resume from its checkpoint.
    let wait_for = deleted.checkpoint_step.map(|_| JobId(deleted.job_id));
    deletions::insert(tx, &Target::Prefix(deleted.adapter_prefix), wait_for).await?;
    Ok(true)
}

struct ModelRow {
    id: Uuid,
    project_id: Uuid,
    name: String,
    job_id: Uuid,
    base_model_id: Uuid,
    base_model: String,
    adapter_prefix: String,
    checkpoint_step: Option<i64>,
    created_at: OffsetDateTime,
}

impl ModelRow {
    fn read(self) -> Result<FineTunedModel, StoreError> {
        Ok(FineTunedModel {
            id: FineTunedModelId(self.id),
            project_id: ProjectId(self.project_id),
            name: self.name,
            job_id: JobId(self.job_id),
            base_model_id: BaseModelId(self.base_model_id),
            base_model: self.base_model,
            adapter_prefix: self.adapter_prefix,
            checkpoint_step: self
                .checkpoint_step
                .map(|n| from_bigint("step", n))
                .transpose()?,
            created_at: self.created_at,
        })
    }
}

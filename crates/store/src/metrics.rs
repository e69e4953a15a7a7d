//! The numbers of every step of a job's run.

use domain::JobId;
use time::OffsetDateTime;

use crate::lease::{self, Lease};
use crate::number::{from_bigint, to_bigint};
use crate::page::one_more;
use crate::tx::Connection;
use crate::{Page, StoreError, TenantTx};

/// The numbers of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics {
    /// Which step, from 1.
    pub step: u64,
    /// Mean loss over the step's supervised tokens, before the update.
    pub train_loss: f64,
    /// The share of supervised tokens that the model would have chosen.
    pub train_accuracy: f64,
    /// The same on the validation file, on steps that evaluate.
    pub valid_loss: Option<f64>,
    /// The same on the validation file, on steps that evaluate.
    pub valid_accuracy: Option<f64>,
    /// As the schedule had it.
    pub learning_rate: f64,
    /// The gradient's global L2 norm before clipping.
    pub grad_norm: f64,
    /// Tokens of the step, prompts included.
    pub n_tokens: u64,
    /// Supervised tokens of the step.
    pub n_loss_tokens: u64,
    /// From step to step.
    pub step_ms: f64,
}

/// Stores the numbers of steps. The same step again overwrites: the run is deterministic, so it says the same.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the attempt no longer holds the job.
pub async fn record(
    tx: &mut TenantTx,
    lease: &Lease,
    steps: &[StepMetrics],
) -> Result<(), StoreError> {
    lease::hold(tx, lease).await?;
    let column = |read: fn(&StepMetrics) -> f64| -> Vec<f64> { steps.iter().map(read).collect() };
    let optional = |read: fn(&StepMetrics) -> Option<f64>| -> Vec<Option<f64>> {
        steps.iter().map(read).collect()
    };
    let count = |field, read: fn(&StepMetrics) -> u64| -> Result<Vec<i64>, StoreError> {
        steps
            .iter()
            .map(|step| to_bigint(field, read(step)))
            .collect()
    };
    sqlx::query!(
        "INSERT INTO job_metrics (project_id, job_id, step, train_loss, train_accuracy, valid_loss,
             valid_accuracy, learning_rate, grad_norm, n_tokens, n_loss_tokens, step_ms)
         SELECT $1, $2, m.*
         FROM unnest($3::bigint[], $4::float8[], $5::float8[], $6::float8[], $7::float8[], $8::float8[],
                     $9::float8[], $10::bigint[], $11::bigint[], $12::float8[]) AS m
         ON CONFLICT (project_id, job_id, step) DO UPDATE
         SET train_loss = EXCLUDED.train_loss, train_accuracy = EXCLUDED.train_accuracy,
             valid_loss = EXCLUDED.valid_loss, valid_accuracy = EXCLUDED.valid_accuracy,
             learning_rate = EXCLUDED.learning_rate, grad_norm = EXCLUDED.grad_norm,
             n_tokens = EXCLUDED.n_tokens, n_loss_tokens = EXCLUDED.n_loss_tokens,
             step_ms = EXCLUDED.step_ms",
        lease.project_id.0,
        lease.job_id.0,
        &count("step", |m| m.step)?,
        &column(|m| m.train_loss),
        &column(|m| m.train_accuracy),
        &optional(|m| m.valid_loss) as &[Option<f64>],
        &optional(|m| m.valid_accuracy) as &[Option<f64>],
        &column(|m| m.learning_rate),
        &column(|m| m.grad_norm),
        &count("n_tokens", |m| m.n_tokens)?,
        &count("n_loss_tokens", |m| m.n_loss_tokens)?,
        &column(|m| m.step_ms),
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The steps after `after_step`, in order. 0 begins.
pub async fn list(
    tx: &mut TenantTx,
    job_id: JobId,
    after_step: u64,
    limit: u32,
) -> Result<Page<StepMetrics>, StoreError> {
    let page = recorded(tx, job_id, after_step, limit).await?;
    Ok(page.map(|step| step.metrics))
}

/// The numbers of one step, and when its worker first stored them.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedStep {
    /// The numbers.
    pub metrics: StepMetrics,
    /// By the database's clock.
    pub recorded_at: OffsetDateTime,
}

/// [`list`] with the steps' times.
pub async fn recorded(
    tx: &mut TenantTx,
    job_id: JobId,
    after_step: u64,
    limit: u32,
) -> Result<Page<RecordedStep>, StoreError> {
    let rows = sqlx::query_as!(
        StepMetricsRow,
        "SELECT step, train_loss, train_accuracy, valid_loss, valid_accuracy, learning_rate, grad_norm,
                n_tokens, n_loss_tokens, step_ms, created_at
         FROM job_metrics WHERE project_id = $1 AND job_id = $2 AND step > $3 ORDER BY step LIMIT $4",
        tx.project_id().0,
        job_id.0,
        to_bigint("step", after_step)?,
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, StepMetricsRow::read)
}

/// The last step that has numbers; 0 before the first.
pub async fn last_step(tx: &mut TenantTx, job_id: JobId) -> Result<u64, StoreError> {
    let last = sqlx::query_scalar!(
        "SELECT max(step) FROM job_metrics WHERE project_id = $1 AND job_id = $2",
        tx.project_id().0,
        job_id.0,
    )
    .fetch_one(tx.connection())
    .await?;
    from_bigint("step", last.unwrap_or(0))
}

struct StepMetricsRow {
    step: i64,
    train_loss: f64,
    train_accuracy: f64,
    valid_loss: Option<f64>,
    valid_accuracy: Option<f64>,
    learning_rate: f64,
    grad_norm: f64,
    n_tokens: i64,
    n_loss_tokens: i64,
    step_ms: f64,
    created_at: OffsetDateTime,
}

impl StepMetricsRow {
    fn read(self) -> Result<RecordedStep, StoreError> {
        let metrics = StepMetrics {
            step: from_bigint("step", self.step)?,
            train_loss: self.train_loss,
            train_accuracy: self.train_accuracy,
            valid_loss: self.valid_loss,
            valid_accuracy: self.valid_accuracy,
            learning_rate: self.learning_rate,
            grad_norm: self.grad_norm,
            n_tokens: from_bigint("n_tokens", self.n_tokens)?,
            n_loss_tokens: from_bigint("n_loss_tokens", self.n_loss_tokens)?,
            step_ms: self.step_ms,
        };
        Ok(RecordedStep {
            metrics,
            recorded_at: self.created_at,
        })
    }
}

//! `GET /v1/fine_tuning/jobs/{id}/metrics`: the numbers of every step, as columns.

use axum::Json;
use axum::extract::State;
use domain::JobId;
use serde::Serialize;
use store::metrics::{self, StepMetrics};
use store::{StoreError, TenantTx};
use utoipa::ToSchema;

use super::retrieve;
use super::thinning::Thinning;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::{Params, PathId};

/// What an answer holds at most, asked or not: some ten megabytes.
const MAX_POINTS: u64 = 100_000;
/// Fewer make no curve.
const MIN_POINTS: u64 = 4;
/// Rows read at once.
const BATCH: u32 = 5_000;

/// A job's numbers. Columns of one series are equally long; the nth of each belong to one step.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobMetrics {
    object: &'static str,
    #[schema(value_type = String)]
    job_id: JobId,
    /// Steps that were made so far.
    n_steps: u64,
    /// Whether some of them are left out here.
    downsampled: bool,
    /// Of training, one value for each step.
    train: TrainColumns,
    /// On the validation file, one value for each step after which it was measured.
    valid: ValidColumns,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct TrainColumns {
    step: Vec<u64>,
    train_loss: Vec<f64>,
    train_mean_token_accuracy: Vec<f64>,
    learning_rate: Vec<f64>,
    grad_norm: Vec<f64>,
    n_tokens: Vec<u64>,
    n_loss_tokens: Vec<u64>,
    step_ms: Vec<f64>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct ValidColumns {
    step: Vec<u64>,
    valid_loss: Vec<f64>,
    valid_mean_token_accuracy: Vec<Option<f64>>,
}

/// List the numbers of every step, oldest first.
///
/// With `max_points=N` of each series only the first, the last, and of equal stretches between them the steps of the
/// lowest and the highest loss.
#[utoipa::path(
    get,
    path = "/v1/fine_tuning/jobs/{id}/metrics",
    tag = "Fine-tuning",
    params(
        ("id" = String, Path, description = "The job's id, `ftjob-…`."),
        ("max_points" = Option<i64>, Query, description = "The most points of each series; 4 to 100000, and 100000 unless asked otherwise. What lies outside is moved to the nearest that is allowed."),
    ),
    responses((status = 200, body = JobMetrics, description = "The numbers, as columns."))
)]
pub async fn list_job_metrics(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<JobId>,
    params: Params,
) -> Result<Json<JobMetrics>, ApiError> {
    let max_points = params.whole("max_points", MAX_POINTS, MIN_POINTS..=MAX_POINTS)?;
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    retrieve::get(&mut tx, id).await?;
    Ok(Json(read(&mut tx, id, max_points).await?))
}

async fn read(tx: &mut TenantTx, id: JobId, max_points: u64) -> Result<JobMetrics, StoreError> {
    let last_step = metrics::last_step(tx, id).await?;
    // A series that fits is not touched.
    let n_points = if last_step <= max_points {
        2 * MAX_POINTS + 2
    } else {
        max_points
    };
    let mut train = Thinning::new(n_points, last_step);
    let mut valid = Thinning::new(n_points, last_step);
    let (mut n_steps, mut n_valid, mut after) = (0, 0, 0);
    loop {
        let page = metrics::list(tx, id, after, BATCH).await?;
        for step in page.data {
            after = step.step;
            n_steps += 1;
            if let Some(loss) = step.valid_loss {
                n_valid += 1;
                valid.add(step.step, loss, step.clone());
            }
            train.add(step.step, step.train_loss, step);
        }
        if !page.has_more || after >= last_step {
            break;
        }
    }
    let (train, valid) = (train.finish(), valid.finish());
    let n_left = (train.len() + valid.len()) as u64;
    Ok(JobMetrics {
        object: "fine_tuning.job.metrics",
        job_id: id,
        n_steps,
        downsampled: n_left < n_steps + n_valid,
        train: TrainColumns::of(&train),
        valid: ValidColumns::of(&valid),
    })
}

impl TrainColumns {
    fn of(steps: &[StepMetrics]) -> Self {
        let mut columns = Self::default();
        for step in steps {
            columns.step.push(step.step);
            columns.train_loss.push(step.train_loss);
            columns.train_mean_token_accuracy.push(step.train_accuracy);
            columns.learning_rate.push(step.learning_rate);
            columns.grad_norm.push(step.grad_norm);
            columns.n_tokens.push(step.n_tokens);
            columns.n_loss_tokens.push(step.n_loss_tokens);
            columns.step_ms.push(step.step_ms);
        }
        columns
    }
}

impl ValidColumns {
    fn of(steps: &[StepMetrics]) -> Self {
        let mut columns = Self::default();
        for step in steps {
            let Some(loss) = step.valid_loss else {
                continue;
            };
            columns.step.push(step.step);
            columns.valid_loss.push(loss);
            columns.valid_mean_token_accuracy.push(step.valid_accuracy);
        }
        columns
    }
}

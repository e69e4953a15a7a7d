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

const OBJECT: &str = "fine_tuning.job.metrics";
/// What an answer holds at most: some ten megabytes.
const MAX_POINTS: u64 = 100_000;
/// No step is beyond it: the database's largest number.
const MAX_STEP: u64 = i64::MAX.unsigned_abs();
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
    /// Whether steps follow after the last one here, to be asked for with `after`.
    has_more: bool,
    /// Whether steps between those here are left out, as `max_points` asks.
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
/// A page has up to 100,000 steps; `has_more` says whether steps follow, `after` asks for those. With `max_points=N` the
/// answer is about the whole run and leaves steps out: of each series only the first, the last, and of equal stretches
/// between them the steps of the lowest and the highest loss.
#[utoipa::path(
    get,
    path = "/v1/fine_tuning/jobs/{id}/metrics",
    tag = "Fine-tuning",
    params(
        ("id" = String, Path, description = "The job's id, `ftjob-…`."),
        ("after" = Option<i64>, Query, description = "The last step of the page before: the last of `train.step`."),
        ("limit" = Option<i64>, Query, description = "How many steps a page has: 100000 unless asked otherwise, and at most. What lies outside is moved to the nearest that is allowed."),
        ("max_points" = Option<i64>, Query, description = "Instead of a page: the most points of each series of the whole run; 4 to 100000. What lies outside is moved to the nearest that is allowed."),
    ),
    responses((status = 200, body = JobMetrics, description = "The numbers, as columns."))
)]
pub async fn list_job_metrics(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<JobId>,
    params: Params,
) -> Result<Json<JobMetrics>, ApiError> {
    let asked = Asked::read(&params)?;
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    retrieve::get(&mut tx, id).await?;
    let metrics = match asked {
        Asked::Page { after, limit } => page(&mut tx, id, after, limit).await,
        Asked::Thinned { max_points } => thinned(&mut tx, id, max_points).await,
    };
    Ok(Json(metrics?))
}

/// Which of a job's numbers.
enum Asked {
    /// Every step after this one, up to so many.
    Page { after: u64, limit: u64 },
    /// So many of all.
    Thinned { max_points: u64 },
}

impl Asked {
    fn read(params: &Params) -> Result<Self, ApiError> {
        if params.given("max_points").is_none() {
            return Ok(Self::Page {
                after: params.whole("after", 0, 0..=MAX_STEP)?,
                limit: params.whole("limit", MAX_POINTS, 1..=MAX_POINTS)?,
            });
        }
        let of_pages = ["after", "limit"];
        if let Some(name) = of_pages
            .into_iter()
            .find(|name| params.given(name).is_some())
        {
            let message =
                format!("`max_points` is of the whole run; leave out either it or `{name}`.");
            return Err(ApiError::invalid("max_points", message));
        }
        let max_points = params.whole("max_points", MAX_POINTS, MIN_POINTS..=MAX_POINTS)?;
        Ok(Self::Thinned { max_points })
    }
}

/// Written into columns as it is read, so that nothing else of the page is in memory.
async fn page(
    tx: &mut TenantTx,
    id: JobId,
    mut after: u64,
    limit: u64,
) -> Result<JobMetrics, StoreError> {
    let n_steps = metrics::last_step(tx, id).await?;
    let (mut train, mut valid) = (TrainColumns::default(), ValidColumns::default());
    let (mut n_left, mut has_more) = (limit, true);
    while has_more && n_left > 0 {
        let batch = u32::try_from(n_left).unwrap_or(BATCH).min(BATCH);
        let read = metrics::list(tx, id, after, batch).await?;
        for step in &read.data {
            after = step.step;
            n_left -= 1;
            train.push(step);
            valid.push(step);
        }
        has_more = read.has_more;
    }
    Ok(JobMetrics {
        object: OBJECT,
        job_id: id,
        // Its worker may have made more meanwhile.
        n_steps: n_steps.max(train.step.last().copied().unwrap_or(0)),
        has_more,
        downsampled: false,
        train,
        valid,
    })
}

async fn thinned(tx: &mut TenantTx, id: JobId, max_points: u64) -> Result<JobMetrics, StoreError> {
    let last_step = metrics::last_step(tx, id).await?;
    if last_step <= max_points {
        return page(tx, id, 0, max_points).await;
    }
    let mut train = Thinning::new(max_points, last_step);
    let mut valid = Thinning::new(max_points, last_step);
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
    let mut metrics = JobMetrics {
        object: OBJECT,
        job_id: id,
        n_steps,
        has_more: false,
        downsampled: n_left < n_steps + n_valid,
        train: TrainColumns::default(),
        valid: ValidColumns::default(),
    };
    for step in &train {
        metrics.train.push(step);
    }
    for step in &valid {
        metrics.valid.push(step);
    }
    Ok(metrics)
}

impl TrainColumns {
    fn push(&mut self, step: &StepMetrics) {
        self.step.push(step.step);
        self.train_loss.push(step.train_loss);
        self.train_mean_token_accuracy.push(step.train_accuracy);
        self.learning_rate.push(step.learning_rate);
        self.grad_norm.push(step.grad_norm);
        self.n_tokens.push(step.n_tokens);
        self.n_loss_tokens.push(step.n_loss_tokens);
        self.step_ms.push(step.step_ms);
    }
}

impl ValidColumns {
    /// Nothing, if it was not measured after this step.
    fn push(&mut self, step: &StepMetrics) {
        if let Some(loss) = step.valid_loss {
            self.step.push(step.step);
            self.valid_loss.push(loss);
            self.valid_mean_token_accuracy.push(step.valid_accuracy);
        }
    }
}

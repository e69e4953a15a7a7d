//! `POST /v1/fine_tuning/jobs/estimate`: what a job would take. Nothing is made.
//!
//! Tokens are counted in the file's own rows, in all of them or, of a large file, in some. Memory follows from sizes.
//! Time is what the latest jobs on the same base model took for as many tokens, the project's own or else all projects', or
//! else jobs on another of about its size: no device is here to ask.

mod duration;

use axum::Json;
use axum::extract::State;
use buckets::ProjectObjects;
use dataset::Judgement;
use domain::cost::{BatchShape, CostModel, Memory};
use domain::{DeviceKind, Needs, TrainingConfig};
use serde::Serialize;
use serde_json::Value;
use store::speeds;
use store::{TenantTx, queue, workers};
use utoipa::ToSchema;

use super::create::{Inputs, inputs, shown_request};
use super::needs::needs;
use super::request::NewJob;
use super::sample::Sample;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::text_models::BaseText;

/// Faulty lines that are named.
const FAULTS_SHOWN: usize = 5;

/// What a job would take.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobEstimate {
    object: &'static str,
    model: String,
    base_model: String,
    data: DataEstimate,
    /// Updates of the whole run.
    steps: u64,
    steps_per_epoch: u64,
    /// Tokens of all steps, prompts included.
    trained_tokens: u64,
    /// Of the steps. None until a job has run here on this base model or one of about its size.
    seconds: Option<f64>,
    /// Where `seconds` comes from and how far to trust it, or why there are none.
    seconds_basis: String,
    /// The fullest moment on one device.
    memory: MemoryEstimate,
    /// Jobs that would come before it, if nothing is added and every worker can take every job.
    queue_position: u64,
    worker: WorkerEstimate,
    #[schema(value_type = Object)]
    hyperparameters: Value,
    #[schema(value_type = Object)]
    method: Value,
    attune: Resolved,
}

/// One pass over the training file.
#[derive(Debug, Default, Serialize, ToSchema)]
struct DataEstimate {
    /// Whether every row was read; otherwise counts are scaled up from some.
    exact: bool,
    /// Rows that can be trained on.
    n_rows: u64,
    n_tokens: u64,
    n_loss_tokens: u64,
    /// Rows that are cut at `max_seq_len`.
    truncated_rows: u64,
    /// Rows that have nothing left to learn then.
    skipped_rows: u64,
    /// Lines that are no rows. One is enough for the job to fail.
    faulty_rows: u64,
    /// What is wrong with the first of them.
    faults: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "units stand last")]
struct MemoryEstimate {
    total_bytes: u64,
    /// The process itself.
    process_bytes: u64,
    base_bytes: u64,
    /// What learns, with its optimizer and its gradients.
    learned_bytes: u64,
    /// What the forward pass leaves for the backward pass.
    activation_bytes: u64,
    /// What is at work on top of that.
    work_bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobEstimateSettings)]
struct Resolved {
    #[schema(value_type = Object)]
    config: TrainingConfig,
}

/// The worker that could take it.
#[derive(Debug, Serialize, ToSchema)]
struct WorkerEstimate {
    /// `cpu` or `cuda`, as `attune.device` asks; none is any.
    #[schema(required, value_type = Option<String>)]
    device: Option<DeviceKind>,
    /// What it must have at least. The rows come on top: see `memory`.
    memory_bytes: u64,
    /// Whether there is one now.
    is_there: bool,
}

impl From<Memory> for MemoryEstimate {
    fn from(memory: Memory) -> Self {
        Self {
            total_bytes: memory.total(),
            process_bytes: memory.process_bytes,
            base_bytes: memory.base_bytes,
            learned_bytes: memory.learned_bytes,
            activation_bytes: memory.activation_bytes,
            work_bytes: memory.work_bytes,
        }
    }
}

/// What was counted in a sample.
#[derive(Default)]
struct Count {
    data: DataEstimate,
    /// Tokens and supervised tokens of the rows; a pair is one.
    rows: Vec<(Vec<u64>, u64)>,
}

/// Say what a job would take: the same request as for making it, and nothing is made.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/jobs/estimate",
    tag = "Fine-tuning",
    request_body(content = super::body::NewFineTuningJob),
    responses((status = 200, body = JobEstimate, description = "What the job would take."))
)]
pub async fn estimate_job(
    State(state): State<AppState>,
    tenant: Tenant,
    JsonBody(body): JsonBody,
) -> Result<Json<JobEstimate>, ApiError> {
    let new = NewJob::read(&body)?;
    let now = state.clock.now();
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let inputs = inputs(&mut tx, &new, now).await?;
    let queue_position = queue::next_position(&mut tx).await?;
    let facts = inputs.facts()?;
    let config = new.asked.resolve(&facts);
    inputs.check_start(&new.model, &config)?;
    let speed = speeds::expected(&mut tx, &inputs.model.base, config.device).await?;
    let worker = worker(&mut tx, needs(&inputs.model.base, &config)).await?;
    let objects = state.buckets.of(&mut tx).await?;
    tx.commit().await?;

    let shown = shown_request(&config, &facts);
    let (data, memory) = measured(&state, &objects, &inputs, &config).await?;
    let Inputs { model, .. } = inputs;
    let steps = config.total_steps(data.n_rows);
    let trained_tokens = trained_tokens(&config, &data);
    let base = &model.base.name;
    let (seconds, seconds_basis) = duration::of(trained_tokens, speed, base, config.device);
    Ok(Json(JobEstimate {
        object: "fine_tuning.job.estimate",
        model: new.model,
        base_model: model.base.name,
        steps,
        steps_per_epoch: config.steps_per_epoch(data.n_rows),
        data,
        trained_tokens,
        seconds,
        seconds_basis,
        memory: memory.into(),
        queue_position,
        worker,
        hyperparameters: shown.hyperparameters,
        method: shown.method,
        attune: Resolved { config },
    }))
}

async fn worker(tx: &mut TenantTx, needs: Needs) -> Result<WorkerEstimate, ApiError> {
    Ok(WorkerEstimate {
        device: needs.device,
        memory_bytes: needs.memory_bytes,
        is_there: workers::some_fits(tx, needs).await?,
    })
}

async fn measured(
    state: &AppState,
    objects: &ProjectObjects,
    inputs: &Inputs,
    config: &TrainingConfig,
) -> Result<(DataEstimate, Memory), ApiError> {
    let file = &inputs.training;
    let key = artifacts::keys::file(file.project_id, file.id);
    let sample = Sample::spread(objects, &key, file.size_bytes).await?;
    let (config, now) = (config.clone(), state.clock.now());
    let (n_lines, n_bytes) = (file.n_lines.unwrap_or(0), file.size_bytes);
    let work = move |base: &BaseText| {
        let text = base.text.clone().with_now(now);
        let mut count = Count::of(&sample, &text, &config);
        let memory = count.memory(base, &config);
        count.data.exact = sample.is_whole;
        if !sample.is_whole {
            count.data.scale(&sample, n_lines, n_bytes);
        }
        Ok((count.data, memory))
    };
    state.texts.with(&inputs.model.base, work).await
}

impl Count {
    fn of(sample: &Sample, text: &text::TextModel, config: &TrainingConfig) -> Self {
        let mut count = Self::default();
        let max_seq_len = usize::try_from(config.max_seq_len).unwrap_or(usize::MAX);
        for row in sample.rows(config.method.row_kind()) {
            let row = match row {
                Ok(row) => row,
                // In a piece from the middle of a file lines have other numbers.
                Err(error) if sample.is_whole => {
                    count.fault(error.to_string());
                    continue;
                }
                Err(error) => {
                    count.fault(error.kind.to_string());
                    continue;
                }
            };
            let other = match &row.judgement {
                Judgement::BetterThan(other) => Some(other),
                Judgement::None | Judgement::Good | Judgement::Bad => None,
            };
            let examples: Result<Vec<_>, _> = [&row.conversation]
                .into_iter()
                .chain(other)
                .map(|conversation| text.encode_example(conversation, max_seq_len))
                .collect();
            match examples {
                Ok(examples) => count.add(&examples),
                Err(error) => count.fault(domain::failure::error_chain(&error)),
            }
        }
        count
    }

    fn add(&mut self, examples: &[text::Example]) {
        let data = &mut self.data;
        data.truncated_rows += u64::from(examples.iter().any(|example| example.truncated));
        if examples.iter().any(|example| example.n_supervised() == 0) {
            data.skipped_rows += 1;
            return;
        }
        let lengths = examples.iter().map(|example| example.n_tokens() as u64);
        let lengths: Vec<u64> = lengths.collect();
        let n_supervised = examples.iter().map(|example| example.n_supervised() as u64);
        let n_supervised = n_supervised.sum();
        data.n_rows += 1;
        data.n_tokens += lengths.iter().sum::<u64>();
        data.n_loss_tokens += n_supervised;
        self.rows.push((lengths, n_supervised));
    }

    fn fault(&mut self, message: String) {
        self.data.faulty_rows += 1;
        if self.data.faults.len() < FAULTS_SHOWN {
            self.data.faults.push(message);
        }
    }

    /// As if the longest rows met in one micro-batch, which some order makes them do.
    fn memory(&mut self, base: &BaseText, config: &TrainingConfig) -> Memory {
        self.rows
            .sort_unstable_by_key(|(lengths, _)| std::cmp::Reverse(lengths.iter().sum::<u64>()));
        let batch_size = usize::try_from(config.batch_size).unwrap_or(usize::MAX);
        let mut fullest = BatchShape::default();
        for (lengths, n_supervised) in self.rows.iter().take(batch_size) {
            fullest.rows.extend(lengths);
            fullest.n_supervised += n_supervised;
        }
        CostModel::new(&base.shape, config).memory(&fullest, &BatchShape::default())
    }
}

impl DataEstimate {
    /// From the sampled bytes to all of the file's.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, and far below 2^52"
    )]
    fn scale(&mut self, sample: &Sample, n_lines: u64, n_bytes: u64) {
        if sample.n_bytes() == 0 {
            // Its lines are longer than a piece: a token is about four bytes, as everywhere before rows are read.
            (self.n_rows, self.n_tokens) = (n_lines, n_bytes / 4);
            self.n_loss_tokens = self.n_tokens;
            return;
        }
        let factor = n_bytes as f64 / sample.n_bytes() as f64;
        for count in [
            &mut self.n_rows,
            &mut self.n_tokens,
            &mut self.n_loss_tokens,
            &mut self.truncated_rows,
            &mut self.skipped_rows,
            &mut self.faulty_rows,
        ] {
            *count = (*count as f64 * factor).round() as u64;
        }
    }
}

/// Tokens of all steps. A step's rows have the file's mean length, replayed ones too.
fn trained_tokens(config: &TrainingConfig, data: &DataEstimate) -> u64 {
    let steps_per_epoch = u128::from(config.steps_per_epoch(data.n_rows));
    if data.n_rows == 0 || steps_per_epoch == 0 {
        return 0;
    }
    let rows = u128::from(config.rows_per_epoch(data.n_rows));
    let steps = u128::from(config.total_steps(data.n_rows));
    let tokens = u128::from(data.n_tokens) * rows * steps;
    u64::try_from(tokens / u128::from(data.n_rows) / steps_per_epoch).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Hyperparameters;
    use domain::auto::Facts;
    use serde_json::json;

    #[test]
    fn tokens_follow_the_steps() {
        let config = |asked: Value| {
            Hyperparameters::parse("", &asked)
                .unwrap()
                .resolve(&Facts::default())
        };
        let data = DataEstimate {
            n_rows: 10,
            n_tokens: 1000,
            ..DataEstimate::default()
        };
        let all = config(json!({"n_epochs": 3, "batch_size": 2}));
        assert_eq!(trained_tokens(&all, &data), 3000);
        let some = config(json!({"n_epochs": 3, "batch_size": 2, "max_steps": 5}));
        assert_eq!(trained_tokens(&some, &data), 1000);
        assert_eq!(trained_tokens(&all, &DataEstimate::default()), 0);
    }
}

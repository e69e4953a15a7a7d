//! `POST /v1/fine_tuning/jobs`.

use axum::extract::State;
use axum::response::Response;
use domain::auto::{Facts, estimated_tokens, learning_rate};
use domain::config::{Method, TunedModel};
use domain::model_name::fine_tuned_name;
use domain::{Job, JobId, JobStatus, TrainingConfig};
use serde_json::{Value, json};
use store::audit::{self, Act};
use store::events::{self, EventLevel, NewEvent};
use store::files::File;
use store::jobs::{self, JobRequest, StoredJob};
use store::models::{self, ResolvedModel};
use store::quotas;
use store::wandb::{accounts, runs};
use store::{TenantTx, stranded};
use time::OffsetDateTime;

use super::FineTuningJob;
use super::body::NewFineTuningJob;
use super::needs::needs;
use super::request::NewJob;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode, Thing};
use crate::extract::JsonBody;
use crate::files::{FINE_TUNE, usable};
use crate::idempotency::{Once, OnceHeader, Opened};
use crate::{AppState, random};

/// Create a job. It is in the queue when this answers.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/jobs",
    tag = "Fine-tuning",
    params(OnceHeader),
    request_body(content = NewFineTuningJob),
    responses((status = 200, body = FineTuningJob, description = "The job, in the queue."))
)]
pub async fn create_job(
    State(state): State<AppState>,
    tenant: Tenant,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let new = NewJob::read(&body)?;
    let now = state.clock.now();
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let once = match once.open(&mut tx, &body, now).await? {
        Opened::Answered(answer) => return Ok(answer),
        Opened::New(once) => once,
    };
    let inputs = inputs(&mut tx, &new, now).await?;
    let n_integrations = new.integrations.len();
    if n_integrations > 0 {
        may_report(&state, &mut tx).await?;
    }
    let (job, request) = resolved(new, &inputs, &tenant, now)?;
    inputs.check_start(&job.model, &job.config)?;
    let needs = needs(&inputs.model.base, &job.config);
    jobs::create_needing(&mut tx, &job, &request, needs).await?;
    runs::create(&mut tx, job.id, n_integrations, now).await?;
    admit(&mut tx, &job, &inputs.training).await?;
    events::append(&mut tx, job.id, &first_events(&job)).await?;
    stranded::tell_new(&mut tx, job.id, needs, now).await?;
    let (id, project_id, act) = (job.id, job.project_id, created(&job));
    let view = FineTuningJob::from(StoredJob { job, request });
    let answer = once.keep(&mut tx, &view).await?;
    audit::record(&mut tx, &tenant.actor(), &act, now).await?;
    tx.commit().await?;
    state.store.wake_workers();
    metrics::counter!("attune_jobs_created_total").increment(1);
    tracing::info!(job.id = %id, project.id = %project_id, "Created job `{id}`");
    Ok(answer)
}

/// Refuses a job that takes its project beyond a limit.
async fn admit(tx: &mut TenantTx, job: &Job, training: &File) -> Result<(), ApiError> {
    let n_rows = training.n_lines.unwrap_or(0).max(1);
    let n_tokens = estimated_tokens(&job.config, n_rows, training.size_bytes);
    let admitted = quotas::admit_job(tx, job, n_tokens, job.created_at).await;
    admitted.map_err(|error| ApiError::of_admission(error, job.created_at))
}

/// Refuses a job that could not report: nobody would see what it was to be seen in.
async fn may_report(state: &AppState, tx: &mut TenantTx) -> Result<(), ApiError> {
    if state.keyring.is_some() && accounts::exists(tx).await? {
        return Ok(());
    }
    let message = "This project has no account of Weights & Biases. Whoever runs this installation sets one: `attune \
                   admin project wandb set PROJECT --api-key-file FILE`. Without one, leave `integrations` out and read \
                   the job's events or its result file.";
    Err(ApiError::invalid("integrations", message).code(ErrorCode::WandbNotConfigured))
}

/// What the audit log keeps of it.
fn created(job: &Job) -> Act {
    let details = json!({"model": job.model, "training_file": job.training_file});
    Act::new("fine_tuning.job.created", "fine_tuning.job", job.id).details(details)
}

/// What a request names, looked up.
pub(super) struct Inputs {
    pub(super) model: ResolvedModel,
    /// What the model consists of, if it is a tuned one and this project made it. Of another's the worker will see it.
    tuned: Option<TunedModel>,
    pub(super) training: File,
    pub(super) validation: Option<File>,
}

/// # Errors
/// The first model or file that cannot be used.
pub(super) async fn inputs(
    tx: &mut TenantTx,
    new: &NewJob,
    now: OffsetDateTime,
) -> Result<Inputs, ApiError> {
    let model = models::resolve(tx, &new.model).await?;
    let model = model.ok_or_else(|| ApiError::not_found(Thing::Model, &new.model))?;
    let maker = match &model.tuned {
        Some(tuned) => jobs::find(tx, tuned.job_id).await?,
        None => None,
    };
    let training = usable_file(tx, "training_file", &new.training_file, now).await?;
    let validation = match &new.validation_file {
        Some(id) => Some(usable_file(tx, "validation_file", id, now).await?),
        None => None,
    };
    if let Some(id) = new.replay_file() {
        usable_file(tx, "attune.replay.file", id, now).await?;
    }
    Ok(Inputs {
        model,
        tuned: maker.map(|maker| TunedModel::from(&maker.job.config.tuning)),
        training,
        validation,
    })
}

impl Inputs {
    /// What settings that were left open follow from.
    pub(super) fn facts(&self) -> Result<Facts, ApiError> {
        Ok(Facts {
            n_rows: self.training.n_lines.unwrap_or(0).max(1),
            n_bytes: self.training.size_bytes,
            n_params: self.model.base.n_params,
            context_length: self.model.base.context_length,
            fallback_seed: random::seed()?,
        })
    }

    /// Refuses a job with these settings that could not go on from its model, which the request calls `name`.
    pub(super) fn check_start(&self, name: &str, config: &TrainingConfig) -> Result<(), ApiError> {
        let Some(tuned) = self.tuned else {
            return Ok(());
        };
        let checked = tuned.check(&config.tuning, name, &self.model.base.name);
        checked.map_err(|misfit| {
            ApiError::invalid("model", format!("Cannot go on from this model: {misfit}."))
                .code(ErrorCode::IncompatibleModel)
        })
    }
}

/// The file that `param` names, if a job can read it.
async fn usable_file(
    tx: &mut TenantTx,
    param: &'static str,
    id: &str,
    now: OffsetDateTime,
) -> Result<File, ApiError> {
    usable::find(tx, (param, id), ("a job", FINE_TUNE), now).await
}

/// The job with every setting decided, and what its view repeats of the request.
fn resolved(
    new: NewJob,
    inputs: &Inputs,
    tenant: &Tenant,
    now: OffsetDateTime,
) -> Result<(Job, JobRequest), ApiError> {
    let base_model = &inputs.model.base.name;
    let facts = inputs.facts()?;
    let config = new.asked.resolve(&facts);
    let request = JobRequest {
        integrations: json!(new.integrations),
        ..shown_request(&config, &facts)
    };
    let model_name = fine_tuned_name(
        base_model,
        &tenant.org_slug,
        new.suffix.as_deref(),
        &random::tag()?,
    );
    let job = Job {
        id: JobId::new(),
        project_id: tenant.project_id,
        org_id: tenant.org_id,
        status: JobStatus::ValidatingFiles,
        model: new.model,
        base_model: base_model.clone(),
        training_file: inputs.training.id,
        validation_file: inputs.validation.as_ref().map(|file| file.id),
        suffix: new.suffix,
        config,
        metadata: new.metadata,
        model_name,
        trained_tokens: None,
        result_file: None,
        error: None,
        attempt: 0,
        created_at: now,
        finished_at: None,
        estimated_finish: None,
        data: None,
    };
    Ok((job, request))
}

/// OpenAI's three settings as numbers, in both places where clients look. A strict client fails without them.
pub(super) fn shown_request(config: &TrainingConfig, facts: &Facts) -> JobRequest {
    // The multiplier relates to the rate that would have been chosen without one.
    let usual_rate = learning_rate(config.method.kind(), config.tuning.kind(), facts.n_params);
    let hyperparameters = json!({
        "n_epochs": config.n_epochs,
        "batch_size": config.batch_size,
        "learning_rate_multiplier": rounded(config.learning_rate / usual_rate),
    });
    JobRequest {
        method: shown_method(&config.method, hyperparameters.clone()),
        hyperparameters,
        integrations: Value::Array(Vec::new()),
    }
}

/// OpenAI knows two of our methods. Every other one learns either from conversations or from preferences, and strict clients
/// are shown which; the method itself stands in `attune.config`.
fn shown_method(method: &Method, mut hyperparameters: Value) -> Value {
    let (name, beta) = match *method {
        Method::Supervised | Method::Kto { .. } => ("supervised", None),
        Method::Dpo { beta }
        | Method::Ipo { beta }
        | Method::Orpo { beta }
        | Method::SimPo { beta, .. } => ("dpo", Some(beta)),
    };
    if let Some(beta) = beta {
        hyperparameters["beta"] = beta.into();
    }
    json!({"type": name, name: {"hyperparameters": hyperparameters}})
}

/// To nine digits: a multiplier of 0.1 comes back as 0.1, not as 0.10000000000000002.
fn rounded(number: f64) -> f64 {
    format!("{number:.8e}")
        .parse()
        .expect("a formatted number is a number")
}

fn first_events(job: &Job) -> [NewEvent; 2] {
    [
        format!("Created fine-tuning job: {}", job.id),
        format!("Validating training file: {}", job.training_file),
    ]
    .map(|text| NewEvent::message(EventLevel::Info, text, job.created_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Hyperparameters;

    #[test]
    fn a_multiplier_comes_back_as_it_was_sent() {
        let facts = Facts::default();
        for multiplier in [0.1, 0.3, 1.0, 1.7, 1000.0] {
            let asked = Hyperparameters {
                learning_rate_multiplier: Some(multiplier),
                ..Hyperparameters::default()
            };
            let shown = shown_request(&asked.resolve(&facts), &facts).hyperparameters;
            assert_eq!(shown["learning_rate_multiplier"], json!(multiplier));
        }
    }

    #[test]
    fn a_learning_rate_of_ones_own_is_shown_as_a_multiplier() {
        let facts = Facts::default();
        let asked = Hyperparameters {
            learning_rate: Some(2e-3),
            ..Hyperparameters::default()
        };
        let shown = shown_request(&asked.resolve(&facts), &facts).hyperparameters;
        assert_eq!(shown["learning_rate_multiplier"], json!(2.0));
    }
}

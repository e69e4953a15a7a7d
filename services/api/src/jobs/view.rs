//! A job as a client sees it.

use std::collections::BTreeMap;

use domain::{FileId, Job, JobData, JobError, JobId, JobStatus, OrgId, TrainingConfig};
use serde::Serialize;
use serde_json::Value;
use store::jobs::StoredJob;
use utoipa::ToSchema;

/// A fine-tuning job. Every key is always there: strict clients fail on one that is missing or of another type.
#[derive(Debug, Serialize, ToSchema)]
pub struct FineTuningJob {
    object: &'static str,
    #[schema(value_type = String)]
    pub(super) id: JobId,
    model: String,
    created_at: i64,
    finished_at: Option<i64>,
    fine_tuned_model: Option<String>,
    #[schema(value_type = String)]
    organization_id: OrgId,
    #[schema(value_type = Vec<String>)]
    result_files: Vec<FileId>,
    /// `validating_files`, `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`. OpenAI's own
    /// enumeration lacks `paused`; who asks with `attune-compat: openai` is shown `queued` instead.
    #[schema(value_type = String)]
    status: JobStatus,
    #[schema(value_type = String)]
    training_file: FileId,
    #[schema(value_type = Option<String>)]
    validation_file: Option<FileId>,
    hyperparameters: Value,
    method: Value,
    trained_tokens: Option<u64>,
    #[schema(value_type = Option<Object>)]
    error: Option<JobError>,
    integrations: Value,
    seed: u64,
    estimated_finish: Option<i64>,
    metadata: Option<BTreeMap<String, String>>,
    attune: Details,
}

/// What OpenAI's object has no place for.
#[derive(Debug, Serialize, ToSchema)]
struct Details {
    base_model: String,
    suffix: Option<String>,
    /// How often a worker took the job up.
    attempt: i32,
    /// Every setting as it was resolved: the same object as the request's `attune`.
    #[schema(value_type = Object)]
    config: TrainingConfig,
    /// What was found in the files, once a worker has read them.
    #[schema(value_type = Option<Object>)]
    data: Option<JobData>,
}

impl From<StoredJob> for FineTuningJob {
    fn from(StoredJob { job, request }: StoredJob) -> Self {
        let fine_tuned_model = job.fine_tuned_model().map(str::to_owned);
        let Job {
            id,
            status,
            created_at,
            ..
        } = job;
        let unix = time::OffsetDateTime::unix_timestamp;
        Self {
            object: "fine_tuning.job",
            id,
            model: job.model,
            created_at: created_at.unix_timestamp(),
            finished_at: job.finished_at.map(unix),
            fine_tuned_model,
            organization_id: job.org_id,
            result_files: job.result_file.into_iter().collect(),
            status,
            training_file: job.training_file,
            validation_file: job.validation_file,
            hyperparameters: request.hyperparameters,
            method: request.method,
            trained_tokens: job.trained_tokens,
            error: job.error,
            integrations: request.integrations,
            seed: job.config.seed,
            estimated_finish: job.estimated_finish.map(unix),
            metadata: job.metadata,
            attune: Details {
                base_model: job.base_model,
                suffix: job.suffix,
                attempt: job.attempt,
                config: job.config,
                data: job.data,
            },
        }
    }
}

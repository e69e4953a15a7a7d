//! A job as a client sees it.

use std::collections::BTreeMap;

use domain::{FileId, Job, JobData, JobError, JobId, JobStatus, OrgId, TrainingConfig};
use serde::Serialize;
use serde_json::Value;
use store::jobs::StoredJob;
use utoipa::ToSchema;

use super::body::Method;
use super::integrations::Integration;
use super::settings::{SupervisedHyperparameters, TrainingSettings};
use crate::openapi::build;

/// A fine-tuning job. Every key is always there: strict clients fail on one that is missing or of another type.
#[derive(Debug, Serialize, ToSchema)]
pub struct FineTuningJob {
    #[schema(schema_with = build::job)]
    object: &'static str,
    #[schema(value_type = String)]
    pub(super) id: JobId,
    model: String,
    created_at: i64,
    #[schema(required)]
    finished_at: Option<i64>,
    #[schema(required)]
    fine_tuned_model: Option<String>,
    #[schema(value_type = String)]
    organization_id: OrgId,
    #[schema(value_type = Vec<String>)]
    result_files: Vec<FileId>,
    /// `validating_files`, `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`. OpenAI's own
    /// enumeration lacks `paused`; who asks with `attune-compat: openai` is shown `queued` instead.
    #[schema(schema_with = build::job_status)]
    status: JobStatus,
    #[schema(value_type = String)]
    training_file: FileId,
    #[schema(required, value_type = Option<String>)]
    validation_file: Option<FileId>,
    #[schema(value_type = SupervisedHyperparameters)]
    hyperparameters: Value,
    #[schema(value_type = Method)]
    method: Value,
    #[schema(required)]
    trained_tokens: Option<u64>,
    #[schema(required, value_type = Option<JobErrorBody>)]
    error: Option<JobError>,
    #[schema(value_type = Vec<Integration>)]
    integrations: Value,
    seed: u64,
    #[schema(required)]
    estimated_finish: Option<i64>,
    #[schema(required)]
    metadata: Option<BTreeMap<String, String>>,
    attune: Details,
}

/// What OpenAI's object has no place for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FineTuningJobDetails)]
struct Details {
    base_model: String,
    #[schema(required)]
    suffix: Option<String>,
    /// How often a worker took the job up.
    attempt: i32,
    /// Every setting as it was resolved: the same object as the request's `attune`.
    #[schema(value_type = TrainingSettings)]
    config: TrainingConfig,
    /// What was found in the files, once a worker has read them.
    #[schema(required, value_type = Option<JobDataBody>)]
    data: Option<JobData>,
}

/// Why a job failed.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `domain::JobError` is what is written"
)]
struct JobErrorBody {
    code: String,
    message: String,
    #[schema(required)]
    param: Option<String>,
}

/// What was found in a job's files.
#[derive(ToSchema)]
#[expect(
    dead_code,
    clippy::struct_field_names,
    reason = "only described: `domain::JobData` is what is written"
)]
struct JobDataBody {
    training_file: DataReportBody,
    #[schema(required)]
    validation_file: Option<DataReportBody>,
    replay_file: Option<DataReportBody>,
}

/// What one dataset file holds, counted after cutting at `max_seq_len`.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: `domain::data::DataReport` is what is written"
)]
struct DataReportBody {
    n_rows: u64,
    n_tokens: u64,
    n_loss_tokens: u64,
    truncated_rows: u64,
    skipped_rows: u64,
    rows_without_end: u64,
    duplicate_rows: u64,
    fingerprint: String,
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

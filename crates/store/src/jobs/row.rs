//! A job as it lies in the table, and the one list of its columns.

use std::collections::BTreeMap;

use domain::{FileId, Job, JobData, JobError, JobId, OrgId, ProjectId, TrainingConfig};
use serde_json::Value;
use sqlx::types::{Json, Uuid};
use time::OffsetDateTime;

use super::{JobRequest, StoredJob};
use crate::StoreError;
use crate::lease::LastFailure;
use crate::number::from_bigint;

/// A statement that yields whole jobs of a table called `j`: what stands before the columns, what after, arguments.
macro_rules! query_jobs {
    ($before:tt, $after:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::jobs::JobRow,
            $before
                + r#"
    j.id, j.project_id, j.org_id, j.status, j.model, j.base_model, j.training_file, j.validation_file, j.suffix,
    j.config AS "config: _", j.data AS "data: _", j.hyperparameters, j.method, j.integrations, j.metadata AS "metadata: _",
    j.model_name, j.trained_tokens, j.result_file, j.error AS "error: _", j.attempt, j.max_attempts,
    j.lease_token, j.lease_expires_at, j.stranded_at, j.last_failure AS "last_failure: _", j.created_at, j.finished_at, j.estimated_finish
"#
                + $after
            $(, $argument)*
        )
    };
}

pub(crate) use query_jobs;

pub(crate) struct JobRow {
    pub(crate) id: Uuid,
    pub(crate) project_id: Uuid,
    pub(crate) org_id: Uuid,
    pub(crate) status: String,
    pub(crate) model: String,
    pub(crate) base_model: String,
    pub(crate) training_file: Uuid,
    pub(crate) validation_file: Option<Uuid>,
    pub(crate) suffix: Option<String>,
    pub(crate) config: Json<TrainingConfig>,
    pub(crate) data: Option<Json<JobData>>,
    pub(crate) hyperparameters: Value,
    pub(crate) method: Value,
    pub(crate) integrations: Value,
    pub(crate) metadata: Option<Json<BTreeMap<String, String>>>,
    pub(crate) model_name: String,
    pub(crate) trained_tokens: Option<i64>,
    pub(crate) result_file: Option<Uuid>,
    pub(crate) error: Option<Json<JobError>>,
    pub(crate) attempt: i32,
    pub(crate) max_attempts: i32,
    pub(crate) lease_token: Option<Uuid>,
    pub(crate) lease_expires_at: Option<OffsetDateTime>,
    pub(crate) stranded_at: Option<OffsetDateTime>,
    pub(crate) last_failure: Option<Json<LastFailure>>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) finished_at: Option<OffsetDateTime>,
    pub(crate) estimated_finish: Option<OffsetDateTime>,
}

impl JobRow {
    pub(crate) fn read(self) -> Result<StoredJob, StoreError> {
        let status = self
            .status
            .parse()
            .map_err(|word: String| StoreError::corrupt("status of a job", word))?;
        let trained_tokens = self
            .trained_tokens
            .map(|n| from_bigint("trained tokens", n))
            .transpose()?;
        let job = Job {
            id: JobId(self.id),
            project_id: ProjectId(self.project_id),
            org_id: OrgId(self.org_id),
            status,
            model: self.model,
            base_model: self.base_model,
            training_file: FileId(self.training_file),
            validation_file: self.validation_file.map(FileId),
            suffix: self.suffix,
            config: self.config.0,
            data: self.data.map(|data| data.0),
            metadata: self.metadata.map(|metadata| metadata.0),
            model_name: self.model_name,
            trained_tokens,
            result_file: self.result_file.map(FileId),
            error: self.error.map(|error| error.0),
            attempt: self.attempt,
            created_at: self.created_at,
            finished_at: self.finished_at,
            estimated_finish: self.estimated_finish,
        };
        let request = JobRequest {
            hyperparameters: self.hyperparameters,
            method: self.method,
            integrations: self.integrations,
        };
        Ok(StoredJob { job, request })
    }
}

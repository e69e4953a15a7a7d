//! `GET /v1/fine_tuning/jobs/{id}/checkpoints`.

use axum::Json;
use axum::extract::State;
use domain::model_name::checkpoint_name;
use domain::{CheckpointId, JobId};
use serde::Serialize;
use store::checkpoints::{self, Checkpoint, CheckpointMetrics};
use utoipa::ToSchema;

use super::retrieve;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::{Params, PathId};
use crate::openapi::build;
use crate::page::{ListPage, list_page};

/// A checkpoint as a client sees it. Its model answers chats like any other.
#[derive(Debug, Serialize, ToSchema)]
pub struct FineTuningJobCheckpoint {
    #[schema(schema_with = build::checkpoint)]
    object: &'static str,
    #[schema(value_type = String)]
    id: CheckpointId,
    created_at: i64,
    fine_tuned_model_checkpoint: String,
    #[schema(value_type = String)]
    fine_tuning_job_id: JobId,
    step_number: u64,
    metrics: Metrics,
}

/// Seven numbers, always: strict clients fail on one that is missing or null. What was not measured, as the
/// validation of a job without a validation file, is 0.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CheckpointMetrics)]
struct Metrics {
    step: u64,
    train_loss: f64,
    train_mean_token_accuracy: f64,
    valid_loss: f64,
    valid_mean_token_accuracy: f64,
    full_valid_loss: f64,
    full_valid_mean_token_accuracy: f64,
}

impl From<CheckpointMetrics> for Metrics {
    fn from(measured: CheckpointMetrics) -> Self {
        Self {
            step: measured.step,
            train_loss: measured.train_loss,
            train_mean_token_accuracy: measured.train_mean_token_accuracy,
            valid_loss: measured.valid_loss.unwrap_or(0.0),
            valid_mean_token_accuracy: measured.valid_mean_token_accuracy.unwrap_or(0.0),
            full_valid_loss: measured.full_valid_loss.unwrap_or(0.0),
            full_valid_mean_token_accuracy: measured.full_valid_mean_token_accuracy.unwrap_or(0.0),
        }
    }
}

impl FineTuningJobCheckpoint {
    fn new(checkpoint: Checkpoint, model_name: &str) -> Self {
        Self {
            object: "fine_tuning.job.checkpoint",
            id: checkpoint.id,
            created_at: checkpoint.created_at.unix_timestamp(),
            fine_tuned_model_checkpoint: checkpoint_name(model_name, checkpoint.step),
            fine_tuning_job_id: checkpoint.job_id,
            step_number: checkpoint.step,
            metrics: checkpoint.metrics.into(),
        }
    }
}

/// List a job's checkpoints, newest first.
#[utoipa::path(
    get,
    path = "/v1/fine_tuning/jobs/{id}/checkpoints",
    tag = "Fine-tuning",
    params(
        ("id" = String, Path, description = "The job's id, `ftjob-…`."),
        ("after" = Option<String>, Query, description = "The id of the last element of the page before."),
        ("limit" = Option<i64>, Query, description = "How many elements a page has: 10 unless asked otherwise, at most 1000. What lies outside is moved to the nearest that is allowed."),
    ),
    responses((status = 200, body = ListPage<FineTuningJobCheckpoint>, description = "A page of checkpoints."))
)]
pub async fn list_job_checkpoints(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<JobId>,
    params: Params,
) -> Result<Json<ListPage<FineTuningJobCheckpoint>>, ApiError> {
    let (after, limit) = (params.after()?, params.limit(10, 1_000)?);
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let job = retrieve::get(&mut tx, id).await?.job;
    let page = checkpoints::list(&mut tx, id, after, limit).await?;
    let page = page.map(|checkpoint| FineTuningJobCheckpoint::new(checkpoint, &job.model_name));
    Ok(list_page(page.data, page.has_more, |checkpoint| {
        checkpoint.id.to_string()
    }))
}

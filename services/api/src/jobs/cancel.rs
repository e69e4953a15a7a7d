//! `POST /v1/fine_tuning/jobs/{id}/cancel`.

use axum::Json;
use axum::extract::State;
use domain::{Job, JobId};

use super::wish::{self, Wish};
use super::{FineTuningJob, Words};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::PathId;

/// Cancel a job. Cancelling a finished job is a 400 (clients retry a 409); a cancelled one is answered as it is.
///
/// Clients announce JSON and send nothing, so the body is not looked at.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/jobs/{id}/cancel",
    tag = "Fine-tuning",
    params(
        ("id" = String, Path, description = "The job's id, `ftjob-…`."),
    ),
    responses((status = 200, body = FineTuningJob, description = "The job, cancelled."))
)]
pub async fn cancel_job(
    State(state): State<AppState>,
    tenant: Tenant,
    words: Words,
    PathId(id): PathId<JobId>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let wish = Wish {
        action: "fine_tuning.job.cancelled",
        event: "Fine-tuning job cancelled",
        apply: Job::cancel,
    };
    let job = wish::grant(&state, &tenant, words, id, &wish).await?;
    Ok(Json(job))
}

//! `POST /v1/fine_tuning/jobs/{id}/pause`.

use axum::Json;
use axum::extract::State;
use domain::JobId;

use super::wish::{self, Wish};
use super::{FineTuningJob, Words};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::PathId;

/// Pause a job. A worker that is at it writes everything it needs to go on and hands it back; the job is shown as
/// paused from now on. Pausing a finished job is a 400 (clients retry a 409); a paused one is answered as it is.
///
/// Clients announce JSON and send nothing, so the body is not looked at.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/jobs/{id}/pause",
    tag = "Fine-tuning",
    params(
        ("id" = String, Path, description = "The job's id, `ftjob-…`."),
        ("attune-compat" = Option<String>, Header, description = "`openai`: only OpenAI's own words, so that a paused job is shown as `queued`."),
    ),
    responses((status = 200, body = FineTuningJob, description = "The job, paused."))
)]
pub async fn pause_job(
    State(state): State<AppState>,
    tenant: Tenant,
    words: Words,
    PathId(id): PathId<JobId>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let wish = Wish {
        action: "fine_tuning.job.paused",
        event: "Fine-tuning job paused",
        apply: |job, _| job.pause(),
    };
    let job = wish::grant(&state, &tenant, words, id, &wish).await?;
    Ok(Json(job))
}

//! `POST /v1/fine_tuning/jobs/{id}/resume`.

use axum::Json;
use axum::extract::State;
use domain::JobId;

use super::wish::{self, Wish};
use super::{FineTuningJob, Words};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::PathId;

/// Resume a paused job. It is in the queue when this answers, and goes on from where it was. Resuming a finished job is a
/// 400; one that is not paused is answered as it is. A paused job does not count among those that wait, so resuming it
/// needs a place in the queue as a new one does (429 `insufficient_quota`).
///
/// Clients announce JSON and send nothing, so the body is not looked at.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/jobs/{id}/resume",
    tag = "Fine-tuning",
    params(
        ("id" = String, Path, description = "The job's id, `ftjob-…`."),
    ),
    responses((status = 200, body = FineTuningJob, description = "The job, in the queue again."))
)]
pub async fn resume_job(
    State(state): State<AppState>,
    tenant: Tenant,
    words: Words,
    PathId(id): PathId<JobId>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let wish = Wish {
        action: "fine_tuning.job.resumed",
        event: "Fine-tuning job resumed",
        apply: |job, _| job.resume(),
    };
    let job = wish::grant(&state, &tenant, words, id, &wish).await?;
    Ok(Json(job))
}

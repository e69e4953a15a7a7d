//! `POST /v1/fine_tuning/jobs/{id}/pause`.

use axum::Json;
use axum::extract::State;
use domain::{JobId, JobStatus};
use store::audit::{self, Act};
use store::events::{self, EventLevel, NewEvent};
use store::jobs::{self, StoredJob};

use super::{FineTuningJob, Words};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
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
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let found = jobs::find_for_update(&mut tx, id).await?;
    let StoredJob { job, request } =
        found.ok_or_else(|| ApiError::not_found(Thing::Job, &id.to_string()))?;
    if job.status == JobStatus::Paused {
        let paused = StoredJob { job, request };
        return Ok(Json(words.show_one(&mut tx, paused).await?));
    }
    let job = job.pause()?;
    jobs::save(&mut tx, &job).await?;
    let now = state.clock.now();
    let event = NewEvent::message(EventLevel::Info, "Fine-tuning job paused", now);
    events::append(&mut tx, id, &[event]).await?;
    let shown = words.show_one(&mut tx, StoredJob { job, request }).await?;
    audit::record(
        &mut tx,
        &tenant.actor(),
        &Act::new("fine_tuning.job.paused", "fine_tuning.job", id),
        now,
    )
    .await?;
    tx.commit().await?;
    tracing::info!(job.id = %id, "Paused job `{id}`");
    Ok(Json(shown))
}

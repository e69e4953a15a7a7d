//! `POST /v1/fine_tuning/jobs/{id}/resume`.

use axum::Json;
use axum::extract::State;
use domain::{JobId, JobStatus};
use store::audit::{self, Act};
use store::events::{self, EventLevel, NewEvent};
use store::jobs::{self, StoredJob};

use super::FineTuningJob;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathId;

/// Resume a paused job. It is in the queue when this answers, and goes on from where it was. Resuming a finished job is a
/// 400; one that is not paused is answered as it is.
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
    PathId(id): PathId<JobId>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let found = jobs::find_for_update(&mut tx, id).await?;
    let StoredJob { job, request } =
        found.ok_or_else(|| ApiError::not_found(Thing::Job, &id.to_string()))?;
    let was_paused = job.status == JobStatus::Paused;
    let job = job.resume()?;
    if was_paused {
        jobs::save(&mut tx, &job).await?;
        let now = state.clock.now();
        let event = NewEvent::message(EventLevel::Info, "Fine-tuning job resumed", now);
        events::append(&mut tx, id, &[event]).await?;
        let act = Act::new("fine_tuning.job.resumed", "fine_tuning.job", id);
        audit::record(&mut tx, &tenant.actor(), &act, now).await?;
        tx.commit().await?;
        state.store.wake_workers();
        tracing::info!(job.id = %id, "Resumed job `{id}`");
    }
    Ok(Json(StoredJob { job, request }.into()))
}

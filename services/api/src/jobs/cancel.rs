//! `POST /v1/fine_tuning/jobs/{id}/cancel`.

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
    PathId(id): PathId<JobId>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let found = jobs::find_for_update(&mut tx, id).await?;
    let StoredJob { job, request } =
        found.ok_or_else(|| ApiError::not_found(Thing::Job, &id.to_string()))?;
    if job.status == JobStatus::Cancelled {
        return Ok(Json(StoredJob { job, request }.into()));
    }
    let now = state.clock.now();
    let job = job.cancel(now)?;
    jobs::save(&mut tx, &job).await?;
    let event = NewEvent::message(
        EventLevel::Info,
        "Fine-tuning job cancelled".to_owned(),
        now,
    );
    events::append(&mut tx, id, &[event]).await?;
    audit::record(
        &mut tx,
        &tenant.actor(),
        &Act::new("fine_tuning.job.cancelled", "fine_tuning.job", id),
        now,
    )
    .await?;
    tx.commit().await?;
    tracing::info!(job.id = %id, "Cancelled job `{id}`");
    Ok(Json(StoredJob { job, request }.into()))
}

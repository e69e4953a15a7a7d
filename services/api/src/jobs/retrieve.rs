//! `GET /v1/fine_tuning/jobs/{id}`.

use axum::Json;
use axum::extract::State;
use domain::JobId;
use store::TenantTx;
use store::jobs::{self, StoredJob};

use super::{FineTuningJob, Words};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathId;

/// Describe a job.
#[utoipa::path(
    get,
    path = "/v1/fine_tuning/jobs/{id}",
    tag = "Fine-tuning",
    params(
        ("id" = String, Path, description = "The job's id, `ftjob-…`."),
        ("attune-compat" = Option<String>, Header, description = "`openai`: only OpenAI's own words, so that a paused job is shown as `queued`."),
    ),
    responses((status = 200, body = FineTuningJob, description = "The job."))
)]
pub async fn retrieve_job(
    State(state): State<AppState>,
    tenant: Tenant,
    words: Words,
    PathId(id): PathId<JobId>,
) -> Result<Json<FineTuningJob>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let job = get(&mut tx, id).await?;
    Ok(Json(words.show_one(&mut tx, job).await?))
}

/// The tenant's job of this id.
pub(super) async fn get(tx: &mut TenantTx, id: JobId) -> Result<StoredJob, ApiError> {
    jobs::find(tx, id)
        .await?
        .ok_or_else(|| ApiError::not_found(Thing::Job, &id.to_string()))
}

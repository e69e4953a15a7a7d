//! What a tenant may wish of a job that is there: to cancel, pause or resume it.

use domain::job::TransitionError;
use domain::{Job, JobId, JobStatus};
use store::audit::{self, Act};
use store::events::{self, EventLevel, NewEvent};
use store::jobs::{self, StoredJob};
use store::quotas;
use time::OffsetDateTime;

use super::{FineTuningJob, Words};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};

/// One of the three.
pub(super) struct Wish {
    /// The action in the audit log.
    pub(super) action: &'static str,
    /// What the job's events say.
    pub(super) event: &'static str,
    /// Whether and how it may be.
    pub(super) apply: fn(Job, OffsetDateTime) -> Result<Job, TransitionError>,
}

/// Does what is wished, and says so to the job's events and the audit log. A job that is so already is answered as it is,
/// and nothing is said.
pub(super) async fn grant(
    state: &AppState,
    tenant: &Tenant,
    words: Words,
    id: JobId,
    wish: &Wish,
) -> Result<FineTuningJob, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let found = jobs::find_for_update(&mut tx, id).await?;
    let StoredJob { job, request } =
        found.ok_or_else(|| ApiError::not_found(Thing::Job, &id.to_string()))?;
    let now = state.clock.now();
    let moved = (wish.apply)(job.clone(), now)?;
    if moved.status == job.status {
        return words.show_one(&mut tx, StoredJob { job, request }).await;
    }
    jobs::save(&mut tx, &moved).await?;
    let waits = moved.status == JobStatus::Queued;
    if waits {
        let admitted = quotas::admit_resumed(&mut tx, id).await;
        admitted.map_err(|error| ApiError::of_admission(error, now))?;
    }
    let event = NewEvent::message(EventLevel::Info, wish.event, now);
    events::append(&mut tx, id, &[event]).await?;
    let moved = StoredJob {
        job: moved,
        request,
    };
    let shown = words.show_one(&mut tx, moved).await?;
    let act = Act::new(wish.action, "fine_tuning.job", id);
    audit::record(&mut tx, &tenant.actor(), &act, now).await?;
    tx.commit().await?;
    if waits {
        state.store.wake_workers();
    }
    tracing::info!(job.id = %id, "{}: `{id}`", wish.event);
    Ok(shown)
}

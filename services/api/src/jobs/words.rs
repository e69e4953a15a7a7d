//! The words a client wants statuses in.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use domain::JobStatus;
use store::jobs::StoredJob;
use store::{TenantTx, projects};

use super::FineTuningJob;
use crate::AppState;
use crate::error::ApiError;

/// The header in which a client asks for OpenAI's own words: `attune-compat: openai`. Any other value asks for nothing.
pub const COMPAT_HEADER: &str = "attune-compat";

/// What the request says of words. Strict clients fail on `paused`, which OpenAI's own enumeration lacks; a whole list does
/// with them if one job in it is. They are shown `queued`, by this header or by the same setting on their project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    only_openais: bool,
}

impl FromRequestParts<AppState> for Words {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        let asked = parts.headers.get(COMPAT_HEADER);
        Ok(Self {
            only_openais: asked.is_some_and(|value| value.as_bytes() == b"openai"),
        })
    }
}

impl Words {
    /// The jobs as this client reads them.
    pub(super) async fn show(
        self,
        tx: &mut TenantTx,
        mut jobs: Vec<StoredJob>,
    ) -> Result<Vec<FineTuningJob>, ApiError> {
        let is_odd = |stored: &StoredJob| stored.job.status == JobStatus::Paused;
        // The setting matters to paused jobs only, and is looked up only for them.
        if jobs.iter().any(is_odd) && (self.only_openais || projects::speaks_openai(tx).await?) {
            for StoredJob { job, .. } in &mut jobs {
                job.status = job.status.in_openais_words();
            }
        }
        Ok(jobs.into_iter().map(FineTuningJob::from).collect())
    }

    /// The job as this client reads it.
    pub(super) async fn show_one(
        self,
        tx: &mut TenantTx,
        job: StoredJob,
    ) -> Result<FineTuningJob, ApiError> {
        let shown = self.show(tx, vec![job]).await?.pop();
        shown.ok_or_else(|| ApiError::internal("a job got lost on its way to the client"))
    }
}

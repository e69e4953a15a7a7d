//! A fine-tuning job and the moves it may make.
//!
//! The database stores what these methods decide; it decides nothing itself.
//!
//! ```text
//! validating_files ──> running ──> succeeded
//!        │  ▲            │ │
//!        │  └─ queued <──┘ ├────> failed
//!        └─────────────────┴────> cancelled
//! ```
//!
//! Each of the first three may become `paused`, and `paused` becomes `queued` again, or ends as they do.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::config::TrainingConfig;
use crate::data::JobData;
use crate::failure::Failure;
use crate::{FileId, JobId, OrgId, ProjectId};

/// Where a job stands. The words are OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waiting for a worker, or at a worker that reads its files. A worker moves it on; if that worker dies, the
    /// lease runs out and another claims the job.
    ValidatingFiles,
    /// Back in the queue after an attempt ended early. The next claim moves it on.
    Queued,
    /// A worker holds a lease and trains. If it dies, the job returns to `Queued` when the lease runs out.
    Running,
    /// Waits for the tenant, not for a worker. A worker that was at it writes a checkpoint first and then hands the
    /// job back; until it has, the job is shown as paused already. Resuming moves it on.
    Paused,
    /// The model is there. Final.
    Succeeded,
    /// See the job's error. Final.
    Failed,
    /// Stopped by the tenant. Final; checkpoints that were written stay usable.
    Cancelled,
}

impl JobStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::ValidatingFiles,
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ValidatingFiles => "validating_files",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will ever change again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The nearest of the six words that OpenAI's own enumeration has. Strict clients refuse any other.
    #[must_use]
    pub fn in_openais_words(self) -> Self {
        match self {
            Self::Paused => Self::Queued,
            word => word,
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a job status"))
    }
}

/// What a failed job shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// Stable and machine-readable.
    pub code: String,
    /// For people: what, where, and the way out.
    pub message: String,
    /// The request field at fault, if one is.
    pub param: Option<String>,
}

impl From<&Failure> for JobError {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Rejected {
                code,
                message,
                param,
            } => Self {
                code: (*code).to_owned(),
                message: message.clone(),
                param: param.map(str::to_owned),
            },
            Failure::Transient { message } => Self {
                code: "temporarily_unavailable".to_owned(),
                message: format!("the job kept failing for a temporary reason: {message}"),
                param: None,
            },
            Failure::Bug { .. } => Self {
                code: "internal_error".to_owned(),
                message: "an internal error stopped the job; the operator's log has the details \
                          under this job's id"
                    .to_owned(),
                param: None,
            },
        }
    }
}

/// A fine-tuning job as one project owns it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The tenant.
    pub project_id: ProjectId,
    /// The tenant's organization, shown on the wire.
    pub org_id: OrgId,
    /// Where it stands.
    pub status: JobStatus,
    /// The model as the client named it: a base model or a fine-tuned one to go on from.
    pub model: String,
    /// The base model's name.
    pub base_model: String,
    /// The rows to learn from.
    pub training_file: FileId,
    /// The rows to measure on.
    pub validation_file: Option<FileId>,
    /// Chosen by the client, part of the model's name.
    pub suffix: Option<String>,
    /// Every setting, resolved.
    pub config: TrainingConfig,
    /// What was found in the files, once a worker has read them.
    pub data: Option<JobData>,
    /// The client's own notes.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The name the model has or will have. Shown once the job succeeded.
    pub model_name: String,
    /// Tokens that were trained on, over all epochs, once the job is done.
    pub trained_tokens: Option<u64>,
    /// The file with the metrics of every step, once the job is done.
    pub result_file: Option<FileId>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// How often it was claimed.
    pub attempt: i32,
    /// When the client made it.
    pub created_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// When it will be done, as far as the running worker can tell.
    pub estimated_finish: Option<OffsetDateTime>,
}

/// A move the job's status does not allow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "job `{id}` is already {status}; only a job that is still waiting or running can be {wanted}"
)]
pub struct TransitionError {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub status: JobStatus,
    wanted: &'static str,
}

/// What a successful attempt leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Tokens trained on, over all epochs.
    pub trained_tokens: u64,
    /// The result file.
    pub result_file: FileId,
}

impl Job {
    /// The files are in order: training begins or goes on. A paused job does not begin: it is handed back.
    pub fn start(self) -> Result<Self, TransitionError> {
        let job = self.open_for("started")?;
        if job.status == JobStatus::Paused {
            return Err(job.refused("started"));
        }
        Ok(Self {
            status: JobStatus::Running,
            ..job
        })
    }

    /// Sets the job aside until the tenant resumes it. Pausing a paused job changes nothing.
    pub fn pause(self) -> Result<Self, TransitionError> {
        let job = self.open_for("paused")?;
        Ok(Self {
            status: JobStatus::Paused,
            estimated_finish: None,
            ..job
        })
    }

    /// Puts a paused job back into the queue. One that waits or runs already stays as it is.
    pub fn resume(self) -> Result<Self, TransitionError> {
        let job = self.open_for("resumed")?;
        let status = match job.status {
            JobStatus::Paused => JobStatus::Queued,
            status => status,
        };
        Ok(Self { status, ..job })
    }

    /// Stops the job for the tenant. Cancelling a cancelled job changes nothing.
    pub fn cancel(self, now: OffsetDateTime) -> Result<Self, TransitionError> {
        if self.status == JobStatus::Cancelled {
            return Ok(self);
        }
        self.end(JobStatus::Cancelled, "cancelled", now)
    }

    /// The model is there.
    pub fn succeed(self, outcome: &Outcome, now: OffsetDateTime) -> Result<Self, TransitionError> {
        let job = self.end(JobStatus::Succeeded, "finished", now)?;
        Ok(Self {
            trained_tokens: Some(outcome.trained_tokens),
            result_file: Some(outcome.result_file),
            ..job
        })
    }

    /// The job will not be tried again.
    pub fn fail(self, error: JobError, now: OffsetDateTime) -> Result<Self, TransitionError> {
        let job = self.end(JobStatus::Failed, "failed", now)?;
        Ok(Self {
            error: Some(error),
            ..job
        })
    }

    /// Back to the queue: the attempt ended, the job did not. One that never began to train waits as before, and one
    /// that was paused meanwhile stays so.
    pub fn requeue(self) -> Result<Self, TransitionError> {
        let job = self.open_for("queued")?;
        let status = match job.status {
            JobStatus::Running => JobStatus::Queued,
            waiting => waiting,
        };
        Ok(Self {
            status,
            estimated_finish: None,
            ..job
        })
    }

    /// The model's name, once it exists.
    pub fn fine_tuned_model(&self) -> Option<&str> {
        (self.status == JobStatus::Succeeded).then_some(self.model_name.as_str())
    }

    fn open_for(self, wanted: &'static str) -> Result<Self, TransitionError> {
        if self.status.is_final() {
            return Err(self.refused(wanted));
        }
        Ok(self)
    }

    fn refused(&self, wanted: &'static str) -> TransitionError {
        TransitionError {
            id: self.id,
            status: self.status,
            wanted,
        }
    }

    fn end(
        self,
        status: JobStatus,
        wanted: &'static str,
        now: OffsetDateTime,
    ) -> Result<Self, TransitionError> {
        let job = self.open_for(wanted)?;
        Ok(Self {
            status,
            finished_at: Some(now),
            estimated_finish: None,
            ..job
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(status: JobStatus) -> Job {
        Job {
            id: JobId::new(),
            project_id: ProjectId::new(),
            org_id: OrgId::new(),
            status,
            model: "base".into(),
            base_model: "base".into(),
            training_file: FileId::new(),
            validation_file: None,
            suffix: None,
            config: TrainingConfig::default(),
            data: None,
            metadata: None,
            model_name: "ft:base:org::tag".into(),
            trained_tokens: None,
            result_file: None,
            error: None,
            attempt: 1,
            created_at: OffsetDateTime::UNIX_EPOCH,
            finished_at: None,
            estimated_finish: None,
        }
    }

    #[test]
    fn a_final_job_never_moves_again() {
        let now = OffsetDateTime::UNIX_EPOCH;
        for status in JobStatus::ALL.into_iter().filter(|s| s.is_final()) {
            assert!(job(status).start().is_err());
            assert!(job(status).requeue().is_err());
            assert!(job(status).pause().is_err());
            assert!(job(status).resume().is_err());
            assert_eq!(
                job(status).cancel(now).is_ok(),
                status == JobStatus::Cancelled
            );
        }
    }

    #[test]
    fn cancelling_a_finished_job_is_refused_by_name() {
        let message = job(JobStatus::Succeeded)
            .cancel(OffsetDateTime::UNIX_EPOCH)
            .unwrap_err()
            .to_string();
        assert!(message.contains("is already succeeded"), "{message}");
    }

    #[test]
    fn a_running_job_goes_back_to_queued_and_a_waiting_one_stays() {
        assert_eq!(
            job(JobStatus::Running).requeue().unwrap().status,
            JobStatus::Queued
        );
        assert_eq!(
            job(JobStatus::ValidatingFiles).requeue().unwrap().status,
            JobStatus::ValidatingFiles
        );
    }

    #[test]
    fn every_open_job_can_be_paused_and_waits_again_when_it_is_resumed() {
        for status in JobStatus::ALL.into_iter().filter(|s| !s.is_final()) {
            let paused = job(status).pause().unwrap();
            assert_eq!(paused.status, JobStatus::Paused);
            assert_eq!(paused.clone().pause().unwrap(), paused);
            assert_eq!(paused.resume().unwrap().status, JobStatus::Queued);
        }
    }

    #[test]
    fn resuming_a_job_that_is_not_paused_changes_nothing() {
        for status in [
            JobStatus::ValidatingFiles,
            JobStatus::Queued,
            JobStatus::Running,
        ] {
            assert_eq!(job(status).resume().unwrap().status, status);
        }
    }

    #[test]
    fn a_paused_job_is_not_started_stays_paused_when_handed_back_and_can_be_cancelled() {
        let paused = job(JobStatus::Paused);
        assert!(paused.clone().start().is_err());
        assert_eq!(paused.clone().requeue().unwrap().status, JobStatus::Paused);
        let cancelled = paused.cancel(OffsetDateTime::UNIX_EPOCH).unwrap();
        assert_eq!(cancelled.status, JobStatus::Cancelled);
    }

    #[test]
    fn only_paused_is_not_a_word_of_openais() {
        for status in JobStatus::ALL {
            let word = status.in_openais_words();
            assert_eq!(word == status, status != JobStatus::Paused);
        }
    }

    #[test]
    fn only_a_succeeded_job_shows_its_model() {
        assert_eq!(job(JobStatus::Running).fine_tuned_model(), None);
        assert!(job(JobStatus::Succeeded).fine_tuned_model().is_some());
    }

    #[test]
    fn a_bug_tells_the_tenant_nothing() {
        let error = JobError::from(&Failure::bug("secret path /root"));
        assert!(!error.message.contains("secret"), "{}", error.message);
    }

    #[test]
    fn every_status_survives_its_word() {
        for status in JobStatus::ALL {
            assert_eq!(status.as_str().parse::<JobStatus>(), Ok(status));
        }
    }
}

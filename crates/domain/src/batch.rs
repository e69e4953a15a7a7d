//! A batch of requests and the moves it may make.
//!
//! ```text
//! validating ──> in_progress ──> finalizing ──> completed
//!    │  │             │  └───────────────────> expired
//!    │  └─────────────┴──> cancelling ───────> cancelled
//!    └───────────────────────────────────────> failed
//! ```
//!
//! Any that is not final becomes `failed` when its answers cannot be kept.
//!
//! Whoever moves it on works in turns under a lease. If it dies, the lease runs out and another goes on with the
//! lines that have no answer yet.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::{BatchId, FileId, ProjectId};

/// The one window there is, as OpenAI writes it.
pub const COMPLETION_WINDOW: &str = "24h";
/// The same as a length of time.
pub const WINDOW: Duration = Duration::DAY;

/// Where a batch stands. The words are OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchStatus {
    /// Its input has not been read yet. Read again from the start after a crash.
    Validating,
    /// Its lines are being answered.
    InProgress,
    /// Every line has its answer; the files are being written. Written anew after a crash.
    Finalizing,
    /// Its files are there. Final.
    Completed,
    /// Its input could not be used, or its answers could not be kept; see its errors. Final.
    Failed,
    /// Its window ended first; what was answered is in its files. Final.
    Expired,
    /// The client gave it up; the files of what was answered are being written.
    Cancelling,
    /// Given up; what was answered is in its files. Final.
    Cancelled,
}

impl BatchStatus {
    const ALL: [Self; 8] = [
        Self::Validating,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will ever change again.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Expired | Self::Cancelled
        )
    }
}

impl fmt::Display for BatchStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BatchStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a batch status"))
    }
}

/// A fault of the input file, or of the batch as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputError {
    /// Stable and machine-readable.
    pub code: String,
    /// The line at fault, from 1, if one is.
    pub line: Option<u64>,
    /// For people: what is wrong, and what would be right.
    pub message: String,
    /// The line's field at fault, if one is.
    pub param: Option<String>,
}

/// What the answers of a batch cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens that were read.
    pub input_tokens: u64,
    /// Those of them that were read before.
    pub cached_tokens: u64,
    /// Tokens that were written.
    pub output_tokens: u64,
    /// Those of them that were thought, not said.
    pub reasoning_tokens: u64,
}

/// How many lines a batch has, and how many have come how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub total: u64,
    /// Answered well.
    pub completed: u64,
    /// Answered with an error.
    pub failed: u64,
}

/// When a batch came how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Its input was in order.
    pub in_progress_at: Option<OffsetDateTime>,
    /// Every line had its answer.
    pub finalizing_at: Option<OffsetDateTime>,
    /// It completed.
    pub completed_at: Option<OffsetDateTime>,
    /// Its input was refused.
    pub failed_at: Option<OffsetDateTime>,
    /// Its window ended.
    pub expired_at: Option<OffsetDateTime>,
    /// The client gave it up.
    pub cancelling_at: Option<OffsetDateTime>,
    /// Its files were written after that.
    pub cancelled_at: Option<OffsetDateTime>,
}

/// A batch as one project owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// The tenant.
    pub project_id: ProjectId,
    /// Where its requests go.
    pub endpoint: String,
    /// The file with its requests.
    pub input_file: FileId,
    /// When the files it makes are deleted by themselves.
    pub output_expires_after_secs: Option<i64>,
    /// The client's notes.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Where it stands.
    pub status: BatchStatus,
    /// The model of its first line.
    pub model: Option<String>,
    /// Why it failed, or, while it is not final, what holds it up.
    pub errors: Option<Vec<InputError>>,
    /// Its lines.
    pub counts: Counts,
    /// What its answers cost.
    pub usage: Usage,
    /// The answers, once it is final and if there are any.
    pub output_file: Option<FileId>,
    /// The errors, likewise.
    pub error_file: Option<FileId>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// The end of its window.
    pub expires_at: OffsetDateTime,
    /// The rest of its times.
    pub times: Times,
}

/// Why a batch cannot do what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch is {0} and cannot be {1}")]
pub struct BatchError(pub BatchStatus, pub &'static str);

impl Batch {
    /// The client gives it up. Asking twice changes nothing.
    ///
    /// # Errors
    /// It ended in another way.
    pub fn cancel(mut self, now: OffsetDateTime) -> Result<Self, BatchError> {
        match self.status {
            BatchStatus::Cancelling | BatchStatus::Cancelled => {}
            status if status.is_final() => return Err(BatchError(status, "cancelled")),
            _ => {
                self.status = BatchStatus::Cancelling;
                self.times.cancelling_at = Some(now);
            }
        }
        Ok(self)
    }

    /// Its input is in order and has `total` lines, the first for `model`.
    ///
    /// # Errors
    /// It was cancelled meanwhile.
    pub fn start(
        mut self,
        total: u64,
        model: String,
        now: OffsetDateTime,
    ) -> Result<Self, BatchError> {
        self.expect(BatchStatus::Validating, "started")?;
        self.status = BatchStatus::InProgress;
        self.counts.total = total;
        self.model = Some(model);
        self.times.in_progress_at = Some(now);
        Ok(self)
    }

    /// Its input cannot be used.
    ///
    /// # Errors
    /// It was cancelled meanwhile.
    pub fn fail(self, errors: Vec<InputError>, now: OffsetDateTime) -> Result<Self, BatchError> {
        self.expect(BatchStatus::Validating, "failed")?;
        self.give_up(errors, now)
    }

    /// Its answers cannot be kept, however many there are: no file is made.
    ///
    /// # Errors
    /// It ended already.
    pub fn give_up(
        mut self,
        errors: Vec<InputError>,
        now: OffsetDateTime,
    ) -> Result<Self, BatchError> {
        if self.status.is_final() {
            return Err(BatchError(self.status, "failed"));
        }
        self.status = BatchStatus::Failed;
        self.errors = Some(errors);
        self.times.failed_at = Some(now);
        Ok(self)
    }

    /// It cannot go on before somebody mends `fault`, and waits for that; with `None` it goes on.
    ///
    /// # Errors
    /// It ended.
    pub fn held_up_by(mut self, fault: Option<InputError>) -> Result<Self, BatchError> {
        if self.status.is_final() {
            return Err(BatchError(self.status, "held up"));
        }
        self.errors = fault.map(|fault| vec![fault]);
        Ok(self)
    }

    /// Every line has its answer.
    ///
    /// # Errors
    /// It was cancelled meanwhile.
    pub fn finalize(mut self, now: OffsetDateTime) -> Result<Self, BatchError> {
        self.expect(BatchStatus::InProgress, "finalized")?;
        self.status = BatchStatus::Finalizing;
        self.times.finalizing_at = Some(now);
        Ok(self)
    }

    /// Its files are written: it has come to the end that its status leads to.
    ///
    /// # Errors
    /// It ended already.
    pub fn finish(
        mut self,
        output_file: Option<FileId>,
        error_file: Option<FileId>,
        now: OffsetDateTime,
    ) -> Result<Self, BatchError> {
        self.status = match self.status {
            BatchStatus::Finalizing => BatchStatus::Completed,
            BatchStatus::Cancelling => BatchStatus::Cancelled,
            // Lines are left: only the end of the window comes to this.
            BatchStatus::Validating | BatchStatus::InProgress => BatchStatus::Expired,
            status => return Err(BatchError(status, "finished")),
        };
        let reached = match self.status {
            BatchStatus::Completed => &mut self.times.completed_at,
            BatchStatus::Cancelled => &mut self.times.cancelled_at,
            _ => &mut self.times.expired_at,
        };
        *reached = Some(now);
        // What held it up is over.
        self.errors = None;
        self.output_file = output_file;
        self.error_file = error_file;
        Ok(self)
    }

    fn expect(&self, status: BatchStatus, verb: &'static str) -> Result<(), BatchError> {
        if self.status == status {
            Ok(())
        } else {
            Err(BatchError(self.status, verb))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let now = OffsetDateTime::UNIX_EPOCH;
        Batch {
            id: BatchId::new(),
            project_id: ProjectId::new(),
            endpoint: "/v1/chat/completions".to_owned(),
            input_file: FileId::new(),
            output_expires_after_secs: None,
            metadata: None,
            status: BatchStatus::Validating,
            model: None,
            errors: None,
            counts: Counts::default(),
            usage: Usage::default(),
            output_file: None,
            error_file: None,
            created_at: now,
            expires_at: now + WINDOW,
            times: Times::default(),
        }
    }

    #[test]
    fn each_way_leads_to_one_end() {
        let now = batch().created_at;
        let started = || batch().start(2, "m".to_owned(), now).unwrap();
        let end = |batch: Batch| batch.finish(None, None, now).unwrap().status;
        assert_eq!(
            end(started().finalize(now).unwrap()),
            BatchStatus::Completed
        );
        assert_eq!(end(started().cancel(now).unwrap()), BatchStatus::Cancelled);
        assert_eq!(end(batch().cancel(now).unwrap()), BatchStatus::Cancelled);
        assert_eq!(end(started()), BatchStatus::Expired);
        let failed = batch().fail(Vec::new(), now).unwrap();
        assert_eq!(failed.status, BatchStatus::Failed);
        assert!(failed.finish(None, None, now).is_err());
    }

    #[test]
    fn cancelling_twice_is_cancelling_once() {
        let now = batch().created_at;
        let once = batch().cancel(now).unwrap();
        let twice = once.clone().cancel(now + Duration::SECOND).unwrap();
        assert_eq!(once, twice);
        let done = twice.finish(None, None, now).unwrap();
        assert_eq!(done.clone().cancel(now), Ok(done));
    }

    #[test]
    fn answers_that_cannot_be_kept_fail_a_batch_that_has_not_ended() {
        let now = batch().created_at;
        let started = || batch().start(2, "m".to_owned(), now).unwrap();
        for batch in [
            started(),
            started().finalize(now).unwrap(),
            started().cancel(now).unwrap(),
        ] {
            let failed = batch.give_up(Vec::new(), now).unwrap();
            assert_eq!(
                (failed.status, failed.times.failed_at),
                (BatchStatus::Failed, Some(now))
            );
            assert!(failed.give_up(Vec::new(), now).is_err());
        }
    }

    #[test]
    fn a_batch_that_ended_cannot_be_cancelled() {
        let now = batch().created_at;
        let failed = batch().fail(Vec::new(), now).unwrap();
        assert!(failed.cancel(now).is_err());
    }
}

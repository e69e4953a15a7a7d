//! An upload: a file that comes in parts, and the moves it may make.
//!
//! ```text
//! pending ──> completed
//!    │ └────> cancelled
//!    └──────> expired
//! ```

use std::fmt;
use std::str::FromStr;

use time::{Duration, OffsetDateTime};

use crate::{FileId, PartId, ProjectId, UploadId};

/// How long parts are taken, as at OpenAI.
pub const UPLOAD_LIFETIME: Duration = Duration::HOUR;

/// Where an upload stands. The words are OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadStatus {
    /// Takes parts. The client completes or cancels it; if it does neither, the sweeper ends it.
    Pending,
    /// Its parts have become a file. Final.
    Completed,
    /// Given up by the client. Final; its parts are deleted.
    Cancelled,
    /// Not completed in time. Final; its parts are deleted.
    Expired,
}

impl UploadStatus {
    const ALL: [Self; 4] = [
        Self::Pending,
        Self::Completed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for UploadStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for UploadStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not an upload status"))
    }
}

/// What a client asks when it completes an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The parts in the file's order.
    pub part_ids: Vec<PartId>,
    /// What the file's MD5 must be, in lower-case hexadecimal digits.
    pub md5: Option<String>,
}

/// An upload as one project owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// The tenant.
    pub project_id: ProjectId,
    /// What the file will be called.
    pub filename: String,
    /// What the file is for.
    pub purpose: String,
    /// How long the file will be, as the client declared.
    pub size_bytes: u64,
    /// When the file, once made, is deleted by itself.
    pub expires_after_secs: Option<i64>,
    /// Where it stands.
    pub status: UploadStatus,
    /// What it was completed with, and the file that came of it.
    pub completed: Option<(Completion, FileId)>,
    /// When it was begun.
    pub created_at: OffsetDateTime,
    /// Until when it takes parts.
    pub expires_at: OffsetDateTime,
}

/// Why an upload cannot do what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// It is final.
    #[error("the upload is {0}: begin another one")]
    Final(UploadStatus),
    /// Its time is over, whether or not the sweeper came by already.
    #[error("the upload has expired, an hour after it was begun: begin another one")]
    Expired,
}

impl Upload {
    /// Whether it still takes parts and may be completed or cancelled.
    ///
    /// # Errors
    /// It is final, or its time is over.
    pub fn check_open(&self, now: OffsetDateTime) -> Result<(), UploadError> {
        match self.status {
            UploadStatus::Pending if now < self.expires_at => Ok(()),
            UploadStatus::Pending | UploadStatus::Expired => Err(UploadError::Expired),
            status => Err(UploadError::Final(status)),
        }
    }

    /// Its parts have become `file_id`. It may have expired while they were joined: it was in time when the client
    /// asked.
    ///
    /// # Errors
    /// It became final meanwhile.
    pub fn complete(self, with: Completion, file_id: FileId) -> Result<Self, UploadError> {
        match self.status {
            UploadStatus::Pending => Ok(Self {
                status: UploadStatus::Completed,
                completed: Some((with, file_id)),
                ..self
            }),
            UploadStatus::Expired => Err(UploadError::Expired),
            status => Err(UploadError::Final(status)),
        }
    }

    /// The client gives it up.
    ///
    /// # Errors
    /// It is final, or its time is over.
    pub fn cancel(self, now: OffsetDateTime) -> Result<Self, UploadError> {
        self.check_open(now)?;
        Ok(Self {
            status: UploadStatus::Cancelled,
            ..self
        })
    }

    /// Nobody completed it in time. `None` if that is not so.
    pub fn expire(self, now: OffsetDateTime) -> Option<Self> {
        let is_due = self.status == UploadStatus::Pending && self.expires_at <= now;
        is_due.then_some(Self {
            status: UploadStatus::Expired,
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload() -> Upload {
        let now = OffsetDateTime::UNIX_EPOCH;
        Upload {
            id: UploadId::new(),
            project_id: ProjectId::new(),
            filename: "a".to_owned(),
            purpose: "fine-tune".to_owned(),
            size_bytes: 1,
            expires_after_secs: None,
            status: UploadStatus::Pending,
            completed: None,
            created_at: now,
            expires_at: now + UPLOAD_LIFETIME,
        }
    }

    #[test]
    fn a_final_upload_moves_no_more() {
        let (now, end) = (upload().created_at, upload().expires_at);
        let with = || Completion {
            part_ids: vec![PartId::new()],
            md5: None,
        };
        let completed = upload().complete(with(), FileId::new()).unwrap();
        let cancelled = upload().cancel(now).unwrap();
        let expired = upload().expire(end).unwrap();
        for upload in [completed, cancelled, expired] {
            assert!(upload.check_open(now).is_err());
            assert!(upload.clone().cancel(now).is_err());
            assert!(upload.clone().expire(end).is_none());
            assert!(upload.complete(with(), FileId::new()).is_err());
        }
    }

    #[test]
    fn an_upload_ends_with_its_hour() {
        let end = upload().expires_at;
        let last = end - Duration::MICROSECOND;
        assert!(upload().check_open(last).is_ok() && upload().expire(last).is_none());
        assert_eq!(upload().check_open(end), Err(UploadError::Expired));
    }
}

//! What can go wrong with an object, told apart by what the caller should do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use domain::failure::capitalized;

/// Any error that we only pass on as a cause.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// A failed operation on the object store. The message names the operation and the key; the cause
/// is the `source`.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A setting is missing from the environment.
    #[error("{name} is not set: it is needed to reach the S3 server")]
    Config { name: &'static str },
    /// A key that could leave its prefix, or that some server would refuse. Never sent.
    #[error("`{key}` is not a usable object key: {reason}")]
    InvalidKey { key: String, reason: &'static str },
    #[error("object `{key}` does not exist")]
    NotFound { key: String },
    /// The data is longer than the caller allows. Nothing was stored.
    #[error("`{key}` is larger than the allowed {max_bytes} bytes")]
    TooLarge { key: String, max_bytes: u64 },
    #[error("range starts beyond the end of `{key}`")]
    InvalidRange { key: String },
    /// The server's disk, or ours, is full. Trying again helps only after someone made room.
    #[error("no space left to {operation} `{key}`")]
    NoSpace {
        operation: &'static str,
        key: String,
        #[source]
        source: Cause,
    },
    /// The server cannot be reached, is overloaded or timed out. Trying again later may help.
    #[error("the S3 server was not available to {operation} `{key}`")]
    Unavailable {
        operation: &'static str,
        key: String,
        #[source]
        source: Cause,
    },
    /// The credentials are wrong or lack the permission.
    #[error("the S3 server denied us to {operation} `{key}`")]
    Denied {
        operation: &'static str,
        key: String,
        #[source]
        source: Cause,
    },
    /// The server understood and refused: a bug of ours or a server that lacks a feature.
    #[error("the S3 server refused to {operation} `{key}` ({code})")]
    Refused {
        operation: &'static str,
        key: String,
        code: String,
        #[source]
        source: Cause,
    },
    /// A project's own bucket cannot be reached, denies us, refuses or is full. Who runs that bucket can mend it, and who
    /// runs the installation by giving the project other credentials.
    #[error("the project's own bucket `{bucket}` {}", .source.in_short())]
    OwnBucket {
        bucket: String,
        #[source]
        source: Box<ArtifactError>,
    },
    /// What arrived is not what was stored.
    #[error("`{key}` is damaged: SHA-256 {actual} where {expected} was stored")]
    Checksum {
        key: String,
        expected: String,
        actual: String,
    },
    /// The stream that a caller gave us to store broke off.
    #[error("reading the data for `{key}` failed")]
    Source {
        key: String,
        #[source]
        source: Cause,
    },
    /// The system has no memory left to gather a part in. Trying again later may help.
    #[error("no memory left to gather a part of `{key}`")]
    NoMemory {
        key: String,
        #[source]
        source: io::Error,
    },
    /// A local file could not be read or written.
    #[error("cannot {operation} `{path}`")]
    Local {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What a project is told when its own bucket failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnBucketFault {
    /// For programs.
    pub code: &'static str,
    /// For people. Names the bucket, as its operator does, and nothing of the way to it.
    pub message: String,
    /// Whether it may pass without anyone changing anything.
    pub may_pass: bool,
}

impl OwnBucketFault {
    /// Every code that one can have: it cannot be reached, it is full, it refuses us.
    pub const CODES: [&'static str; 3] = ["bucket_unavailable", "bucket_full", "bucket_refused"];
}

impl ArtifactError {
    /// Whether the same call may succeed later without anyone changing the request.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::NoSpace { .. }
            | Self::NoMemory { .. }
            | Self::Checksum { .. } => true,
            Self::OwnBucket { source, .. } => source.is_transient(),
            _ => false,
        }
    }

    /// What a project is told when its own bucket failed. None for any other error.
    pub fn own_bucket(&self) -> Option<OwnBucketFault> {
        let Self::OwnBucket { source, .. } = self else {
            return None;
        };
        let [unavailable, full, refused] = OwnBucketFault::CODES;
        let (code, hint) = match **source {
            Self::Unavailable { .. } => (unavailable, "Try again soon"),
            Self::NoSpace { .. } => (full, "Make room in it"),
            _ => (
                refused,
                "Its credentials or their permissions have to be mended",
            ),
        };
        Some(OwnBucketFault {
            code,
            message: format!("{}. {hint}.", capitalized(&self.to_string())),
            may_pass: self.is_transient(),
        })
    }

    /// The fault of a project's own bucket, if it is one that whoever runs the bucket can mend.
    pub(crate) fn of_own(self, bucket: &str) -> Self {
        match self {
            fault @ (Self::Unavailable { .. }
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::NoSpace { .. }) => Self::OwnBucket {
                bucket: bucket.to_owned(),
                source: Box::new(fault),
            },
            other => other,
        }
    }

    /// What a bucket did that failed in this way.
    fn in_short(&self) -> Cow<'static, str> {
        match self {
            Self::Unavailable { .. } => "could not be reached".into(),
            Self::Denied { .. } => "denied access".into(),
            Self::NoSpace { .. } => "has no space left".into(),
            Self::Refused { code, .. } => format!("refused a request ({code})").into(),
            _ => "failed".into(),
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// An error of a local file; a full disk is told apart.
    pub(crate) fn local(operation: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            let key = path.display().to_string();
            return Self::NoSpace {
                operation,
                key,
                source: source.into(),
            };
        }
        Self::Local {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// Sorts what the SDK reports by what the caller can do about it.
    pub(crate) fn from_sdk<E>(
        operation: &'static str,
        key: &str,
        error: SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: StdError + ProvideErrorMetadata + RequestId + Send + Sync + 'static,
    {
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        let code = error.code().map(str::to_owned);
        let code = code.unwrap_or_else(|| format!("HTTP {}", status.unwrap_or_default()));
        let reached = matches!(error, SdkError::ServiceError(_));
        let key = key.to_owned();
        let source: Cause = Box::new(error);
        match (status, code.as_str()) {
            _ if !reached => Self::Unavailable {
                operation,
                key,
                source,
            },
            (_, "NoSuchBucket") => Self::Refused {
                operation,
                key,
                code,
                source,
            },
            (Some(404), _) => Self::NotFound { key },
            (Some(507), _) | (_, "XMinioStorageFull" | "StorageFull") => Self::NoSpace {
                operation,
                key,
                source,
            },
            (Some(401 | 403), _) => Self::Denied {
                operation,
                key,
                source,
            },
            (Some(416), _) => Self::InvalidRange { key },
            (Some(408 | 429 | 500..), _) => Self::Unavailable {
                operation,
                key,
                source,
            },
            _ => Self::Refused {
                operation,
                key,
                code,
                source,
            },
        }
    }
}

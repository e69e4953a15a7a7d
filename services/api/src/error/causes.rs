//! What the errors of other crates are to a client.

use std::error::Error as StdError;

use artifacts::ArtifactError;
use buckets::BucketError;
use domain::FieldError;
use domain::batch::BatchError;
use domain::failure::capitalized;
use domain::job::TransitionError;
use domain::upload::UploadError;
use store::StoreError;
use store::api_keys::RotationRefused;

use super::{ApiError, ErrorCode, Kind};
use crate::extract;

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        let message = error.to_string();
        Self::invalid(error.field, message)
    }
}

impl From<TransitionError> for ApiError {
    fn from(error: TransitionError) -> Self {
        Self::invalid_request(error.to_string()).code(ErrorCode::JobIsFinal)
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let code = match error {
            UploadError::Expired => ErrorCode::UploadExpired,
            UploadError::Final(_) => ErrorCode::UploadIsFinal,
        };
        Self::invalid_request(sentence(&error)).code(code)
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        Self::invalid_request(sentence(&error)).code(ErrorCode::BatchIsFinal)
    }
}

impl From<RotationRefused> for ApiError {
    fn from(error: RotationRefused) -> Self {
        let code = match error {
            RotationRefused::Replaced { .. } => ErrorCode::KeyReplaced,
            RotationRefused::Revoked(_) => ErrorCode::KeyRevoked,
            RotationRefused::Expired(_) => ErrorCode::KeyExpired,
        };
        Self::invalid_request(sentence(&error)).code(code)
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        if let Some(fault) = error.own_bucket() {
            return Self::own_bucket(fault, error);
        }
        match error {
            ArtifactError::NoSpace { .. } => {
                let full = Self::new(Kind::StorageFull, "").code(ErrorCode::StorageFull);
                Self {
                    cause: Some(error.into()),
                    ..full
                }
            }
            error if error.is_transient() => Self::unavailable(error),
            error => Self::internal(error),
        }
    }
}

impl From<BucketError> for ApiError {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Store(error) => error.into(),
            BucketError::NoKeyring { .. } => Self::internal(error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NulCharacter { field } => Self::invalid(field, error.to_string()),
            StoreError::UnknownCursor => extract::unknown_cursor(),
            StoreError::Transition(error) => error.into(),
            StoreError::Archived => Self::project_archived(),
            StoreError::Quota(exceeded) => Self::quota_exceeded(&exceeded),
            StoreError::Rotation(refused) => refused.into(),
            error if error.is_transient() => Self::unavailable(error),
            error => Self::internal(error),
        }
    }
}

/// An error's text as a client reads it.
fn sentence(error: &impl StdError) -> String {
    format!("{}.", capitalized(&error.to_string()))
}

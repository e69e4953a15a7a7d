//! How an attempt ends when it does not end well.

use artifacts::ArtifactError;
use domain::Failure;
use domain::failure::error_chain;
use lm::error::LoadError;
use store::StoreError;
use training::{DataFault, TrainError};

/// Why an attempt stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The job failed, for good or until the next attempt.
    Failed(Failure),
    /// The job is no longer ours: cancelled, or given to another worker. Nothing may be written.
    LeaseLost,
    /// The worker was asked to go, or the tenant paused the job; it is handed back.
    Leaving,
    /// Postgres or S3 cannot be reached. No job can help that, so however often it happens, none fails of it.
    Away {
        /// Which one, and how we know.
        message: String,
    },
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::LeaseLost,
            error if error.is_transient() => Self::Away {
                message: error_chain(&error),
            },
            error => Self::Failed(Failure::bug(error_chain(&error))),
        }
    }
}

impl From<ArtifactError> for Stop {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::Unavailable { .. } => Self::Away {
                message: error_chain(&error),
            },
            // A folder that cannot be written, or a bucket that refuses us, is for the operator: later attempts may work.
            ArtifactError::Local { .. } | ArtifactError::Denied { .. } => {
                Self::Failed(Failure::transient(&error))
            }
            error if error.is_transient() => Self::Failed(Failure::transient(&error)),
            error => Self::Failed(Failure::bug(error_chain(&error))),
        }
    }
}

impl From<TrainError> for Stop {
    fn from(error: TrainError) -> Self {
        Self::Failed(match &error {
            TrainError::DoesNotFit(_) => {
                Failure::rejected("does_not_fit", Some("hyperparameters"), error.to_string())
            }
            TrainError::NonFinite { .. } => Failure::rejected(
                "non_finite_loss",
                Some("hyperparameters"),
                error.to_string(),
            ),
            TrainError::Checkpoint { .. } | TrainError::Rows(_) => Failure::transient(&error),
            TrainError::Resume(_) => Failure::bug(error_chain(&error)),
        })
    }
}

/// A base model or adapter that does not load was verified when it was stored, so it is not the tenant's doing.
impl From<LoadError> for Stop {
    fn from(error: LoadError) -> Self {
        Self::Failed(Failure::bug(error_chain(&error)))
    }
}

/// A fault of a dataset file, as its owner reads it.
pub(crate) fn data_fault(param: &'static str, fault: &DataFault) -> Stop {
    Stop::Failed(match fault {
        DataFault::Io { .. } => Failure::transient(fault),
        fault => {
            let code = match param {
                "validation_file" => "invalid_validation_file",
                _ => "invalid_training_file",
            };
            Failure::rejected(code, Some(param), fault.to_string())
        }
    })
}

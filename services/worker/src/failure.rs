//! How an attempt ends when it does not end well.

use artifacts::ArtifactError;
use buckets::BucketError;
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
    /// The project's own bucket is away, full or refuses us. One that may come back is waited for as for S3; one that
    /// refuses fails the job in the end, or nobody would know that something has to be mended.
    OwnBucket {
        /// What it did and how we know.
        message: String,
        /// What it did, for the tenant.
        told: String,
        /// Whether it may pass.
        may_pass: bool,
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

impl From<BucketError> for Stop {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Store(error) => error.into(),
            // For the operator, who can mend it while the job waits.
            BucketError::NoKeyring { .. } => Self::Failed(Failure::transient(&error)),
        }
    }
}

impl From<ArtifactError> for Stop {
    fn from(error: ArtifactError) -> Self {
        if let Some(fault) = error.own_bucket() {
            return Self::OwnBucket {
                message: error_chain(&error),
                told: error.to_string(),
                may_pass: fault.may_pass,
            };
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn own_bucket(source: ArtifactError) -> Stop {
        let bucket = "acme-models".to_owned();
        let source = Box::new(source);
        ArtifactError::OwnBucket { bucket, source }.into()
    }

    #[test]
    fn a_projects_own_bucket_is_named_and_told_apart_from_ours() {
        let (operation, key) = ("get", "proj_1/files/file-1".to_owned());
        let ours = ArtifactError::Unavailable {
            operation,
            key: key.clone(),
            source: "connection refused".into(),
        };
        assert!(matches!(Stop::from(ours), Stop::Away { .. }));

        let away = own_bucket(ArtifactError::Unavailable {
            operation,
            key: key.clone(),
            source: "10.0.0.7 refused".into(),
        });
        let denied = own_bucket(ArtifactError::Denied {
            operation,
            key,
            source: "at 10.0.0.7".into(),
        });
        for (stop, passes) in [(away, true), (denied, false)] {
            let Stop::OwnBucket {
                message,
                told,
                may_pass,
            } = stop
            else {
                panic!("{stop:?}")
            };
            assert_eq!(may_pass, passes);
            assert!(told.contains("`acme-models`") && message.starts_with(&told));
            // Where it is, is for whoever reads the log.
            assert!(!told.contains("10.0.0.7") && message.contains("10.0.0.7"));
        }
    }
}

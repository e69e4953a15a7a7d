//! What can go wrong with the database, sorted by what the caller can do about it.

use domain::job::TransitionError;

use crate::api_keys::RotationRefused;
use crate::quotas::QuotaExceeded;
use crate::sealed::{Place, SealedError};

/// What the trigger `refuse_archived` raises.
const ARCHIVED: &str = "AT001";

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The job went to another worker, was cancelled or has ended. Not a failure: stop and write nothing.
    #[error("the lease on the job is lost")]
    LeaseLost,
    /// The job has used up its attempts: it is not handed back any more, but failed.
    #[error("the job has no attempt left")]
    NoAttemptLeft,
    /// A text that a client sent cannot be stored.
    #[error("`{field}` contains a NUL character (\\u0000), which cannot be stored; remove it")]
    NulCharacter {
        /// The field of the request.
        field: &'static str,
    },
    /// `after` names nothing in the list that is paged.
    #[error("`after` does not name an element of this list")]
    UnknownCursor,
    /// There is such a row already.
    #[error("it exists already (constraint `{constraint}`)")]
    Exists {
        /// The constraint that says so.
        constraint: String,
    },
    /// The row would point at nothing.
    #[error("it refers to something that does not exist (constraint `{constraint}`)")]
    MissingReference {
        /// The constraint that says so.
        constraint: String,
    },
    /// The project was archived, a moment ago: a request that comes now is not let in.
    #[error("the project is archived")]
    Archived,
    /// The project's objects are in another place than a moment ago, when one was put where they were.
    #[error("the project was given another bucket while an object of it was stored")]
    BucketChanged,
    /// The project would use more than it may.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The API key is not one to replace.
    #[error(transparent)]
    Rotation(#[from] RotationRefused),
    /// The job's status does not allow the move.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// A number that the database's type cannot hold.
    #[error("`{field}` is too large to be stored")]
    Number {
        /// Which one.
        field: &'static str,
    },
    /// A stored value that this version cannot read.
    #[error("the stored {what} cannot be read")]
    Corrupt {
        /// The column.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A secret that does not open.
    #[error("the secret `{}` of the row `{}` of `{}` cannot be read", place.column, place.row_id, place.table)]
    Sealed {
        /// Where it stands.
        place: Place,
        /// Why.
        #[source]
        source: SealedError,
    },
    /// No connection, or one that broke. The same again may work later.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused.
    #[error("the database refused a statement")]
    Database(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database could not be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The operating system gave no random bytes.
    #[error("no random bytes to make a secret from")]
    Randomness(#[source] getrandom::Error),
}

impl StoreError {
    /// Whether the same call may work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::BucketChanged)
    }

    pub(crate) fn corrupt(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt {
            what,
            source: source.into(),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            return Self::Unavailable(error);
        }
        let Some(database) = error.as_database_error() else {
            return Self::Database(error);
        };
        let constraint = database.constraint().unwrap_or_default().to_owned();
        if database.is_unique_violation() {
            Self::Exists { constraint }
        } else if database.is_foreign_key_violation() {
            Self::MissingReference { constraint }
        } else if database.code().as_deref() == Some(ARCHIVED) {
            Self::Archived
        } else {
            Self::Database(error)
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) if is_unavailable(&error) => {
                Self::Unavailable(error)
            }
            error => Self::Migrate(error),
        }
    }
}

fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing(&code)),
        _ => false,
    }
}

/// SQLSTATE classes of trouble that passes: connection (08), resources (53), shutdown and start (57P), serialization
/// and deadlock (40).
fn is_passing(code: &str) -> bool {
    ["08", "53", "57P", "40"]
        .iter()
        .any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_shuts_down_is_worth_another_try() {
        assert!(is_passing("57P01"));
        assert!(is_passing("53300"));
        assert!(!is_passing("23505"));
        assert!(StoreError::from(sqlx::Error::PoolTimedOut).is_transient());
        assert!(!StoreError::LeaseLost.is_transient());
    }
}

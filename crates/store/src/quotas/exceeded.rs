//! What a project is told that has reached a limit.

/// The limit that a request would go beyond. The message says what it is, where the project stands and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// Of jobs that wait.
    #[error(
        "This project may have {max} jobs waiting (max_queued_jobs), and {waiting} wait already. Try again when some of \
         them have started, cancel some, or ask your administrator for more."
    )]
    QueuedJobs {
        /// The limit.
        max: u64,
        /// Without the one that was refused.
        waiting: u64,
    },
    /// Of stored bytes.
    #[error(
        "This project may store {max} bytes (max_storage_bytes) and stores {used}; what was sent does not fit beside them. \
         Delete files and models that are no longer needed, or ask your administrator for more."
    )]
    StorageBytes {
        /// The limit.
        max: u64,
        /// Without what was refused.
        used: u64,
    },
    /// Of stored bytes, before a job could add its models.
    #[error(
        "This project may store {max} bytes (max_storage_bytes) and stores {used}, so that there is no room for what a job \
         makes. Delete files and models that are no longer needed, or ask your administrator for more."
    )]
    NoRoomForModels {
        /// The limit.
        max: u64,
        /// What is stored.
        used: u64,
    },
    /// Of trained tokens.
    #[error(
        "This project may train {max} tokens a day (max_trained_tokens_per_day). {used} of them were trained since \
         midnight UTC or are expected of jobs that have not finished, and this job is expected to take {wanted}. Try again \
         tomorrow, train on fewer rows or epochs, or ask your administrator for more."
    )]
    TrainedTokens {
        /// The limit.
        max: u64,
        /// Trained today, and expected of unfinished jobs.
        used: u64,
        /// Expected of the one that was refused.
        wanted: u64,
    },
}

//! What was found in a job's files.

use serde::{Deserialize, Serialize};

/// What one dataset file holds, counted after cutting at `max_seq_len`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataReport {
    /// Rows that can be trained on.
    pub n_rows: u64,
    /// Their tokens, prompts included.
    pub n_tokens: u64,
    /// Their supervised tokens.
    pub n_loss_tokens: u64,
    /// Rows that were longer than `max_seq_len` and have been cut.
    pub truncated_rows: u64,
    /// Rows that were left out because cutting took everything there was to learn.
    pub skipped_rows: u64,
    /// Rows that were not cut and yet teach no token that ends a text.
    #[serde(default)]
    pub rows_without_end: u64,
    /// Rows that had been there before, word for word.
    pub duplicate_rows: u64,
    /// SHA-256 over tokens and mask of all rows, in hexadecimal: what training sees, whatever the file's spelling.
    pub fingerprint: String,
}

/// The reports of a job's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobData {
    /// The rows to learn from.
    pub training_file: DataReport,
    /// The rows to measure on.
    pub validation_file: Option<DataReport>,
    /// The rows that are mixed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_file: Option<DataReport>,
}

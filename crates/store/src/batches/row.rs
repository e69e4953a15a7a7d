//! A batch as it lies in the table, and the one list of its columns.

use std::collections::BTreeMap;

use domain::batch::{Counts, InputError, Times, Usage};
use domain::{Batch, BatchId, FileId, ProjectId};
use sqlx::types::{Json, Uuid};
use time::OffsetDateTime;

use crate::StoreError;
use crate::number::from_bigint;

/// A statement that yields whole batches of a table called `b`: what stands before the columns, what after, arguments.
macro_rules! query_batches {
    ($before:tt, $after:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::batches::BatchRow,
            $before
                + r#"
    b.id, b.project_id, b.endpoint, b.input_file, b.output_expires_after_secs, b.metadata AS "metadata: _", b.status,
    b.model, b.errors AS "errors: _", b.n_total, b.n_completed, b.n_failed, b.input_tokens, b.cached_tokens,
    b.output_tokens, b.reasoning_tokens, b.output_file, b.error_file, b.created_at, b.expires_at,
    b.in_progress_at, b.finalizing_at, b.completed_at, b.failed_at, b.expired_at, b.cancelling_at, b.cancelled_at
"#
                + $after
            $(, $argument)*
        )
    };
}

pub(crate) use query_batches;

pub(crate) struct BatchRow {
    pub(crate) id: Uuid,
    pub(crate) project_id: Uuid,
    pub(crate) endpoint: String,
    pub(crate) input_file: Uuid,
    pub(crate) output_expires_after_secs: Option<i64>,
    pub(crate) metadata: Option<Json<BTreeMap<String, String>>>,
    pub(crate) status: String,
    pub(crate) model: Option<String>,
    pub(crate) errors: Option<Json<Vec<InputError>>>,
    pub(crate) n_total: i64,
    pub(crate) n_completed: i64,
    pub(crate) n_failed: i64,
    pub(crate) input_tokens: i64,
    pub(crate) cached_tokens: i64,
    pub(crate) output_tokens: i64,
    pub(crate) reasoning_tokens: i64,
    pub(crate) output_file: Option<Uuid>,
    pub(crate) error_file: Option<Uuid>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) in_progress_at: Option<OffsetDateTime>,
    pub(crate) finalizing_at: Option<OffsetDateTime>,
    pub(crate) completed_at: Option<OffsetDateTime>,
    pub(crate) failed_at: Option<OffsetDateTime>,
    pub(crate) expired_at: Option<OffsetDateTime>,
    pub(crate) cancelling_at: Option<OffsetDateTime>,
    pub(crate) cancelled_at: Option<OffsetDateTime>,
}

impl BatchRow {
    pub(crate) fn read(self) -> Result<Batch, StoreError> {
        let status = self.status.parse();
        let number = |n| from_bigint("count of a batch", n);
        Ok(Batch {
            id: BatchId(self.id),
            project_id: ProjectId(self.project_id),
            endpoint: self.endpoint,
            input_file: FileId(self.input_file),
            output_expires_after_secs: self.output_expires_after_secs,
            metadata: self.metadata.map(|Json(pairs)| pairs),
            status: status
                .map_err(|error: String| StoreError::corrupt("status of a batch", error))?,
            model: self.model,
            errors: self.errors.map(|Json(errors)| errors),
            counts: Counts {
                total: number(self.n_total)?,
                completed: number(self.n_completed)?,
                failed: number(self.n_failed)?,
            },
            usage: Usage {
                input_tokens: number(self.input_tokens)?,
                cached_tokens: number(self.cached_tokens)?,
                output_tokens: number(self.output_tokens)?,
                reasoning_tokens: number(self.reasoning_tokens)?,
            },
            output_file: self.output_file.map(FileId),
            error_file: self.error_file.map(FileId),
            created_at: self.created_at,
            expires_at: self.expires_at,
            times: Times {
                in_progress_at: self.in_progress_at,
                finalizing_at: self.finalizing_at,
                completed_at: self.completed_at,
                failed_at: self.failed_at,
                expired_at: self.expired_at,
                cancelling_at: self.cancelling_at,
                cancelled_at: self.cancelled_at,
            },
        })
    }
}

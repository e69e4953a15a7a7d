//! A batch as a client sees it.

use std::collections::BTreeMap;

use domain::batch::{COMPLETION_WINDOW, InputError};
use domain::{Batch, BatchId, FileId};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A batch. Every key is always there.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchObject {
    #[schema(value_type = String)]
    pub(super) id: BatchId,
    object: &'static str,
    endpoint: String,
    model: Option<String>,
    errors: Option<Errors>,
    #[schema(value_type = String)]
    input_file_id: FileId,
    completion_window: &'static str,
    status: &'static str,
    #[schema(value_type = Option<String>)]
    output_file_id: Option<FileId>,
    #[schema(value_type = Option<String>)]
    error_file_id: Option<FileId>,
    created_at: i64,
    in_progress_at: Option<i64>,
    expires_at: i64,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    request_counts: RequestCounts,
    usage: Usage,
    metadata: Option<BTreeMap<String, String>>,
}

/// What is wrong with the input.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchErrors)]
struct Errors {
    object: &'static str,
    data: Vec<Fault>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchError)]
struct Fault {
    code: String,
    /// From 1.
    line: Option<u64>,
    message: String,
    param: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchRequestCounts)]
struct RequestCounts {
    total: u64,
    completed: u64,
    failed: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchUsage)]
struct Usage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchInputTokensDetails)]
struct InputDetails {
    cached_tokens: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchOutputTokensDetails)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl From<Batch> for BatchObject {
    fn from(batch: Batch) -> Self {
        let unix = |time: Option<OffsetDateTime>| time.map(OffsetDateTime::unix_timestamp);
        let times = batch.times;
        Self {
            id: batch.id,
            object: "batch",
            endpoint: batch.endpoint,
            model: batch.model,
            errors: batch.errors.map(Errors::from),
            input_file_id: batch.input_file,
            completion_window: COMPLETION_WINDOW,
            status: batch.status.as_str(),
            output_file_id: batch.output_file,
            error_file_id: batch.error_file,
            created_at: batch.created_at.unix_timestamp(),
            in_progress_at: unix(times.in_progress_at),
            expires_at: batch.expires_at.unix_timestamp(),
            finalizing_at: unix(times.finalizing_at),
            completed_at: unix(times.completed_at),
            failed_at: unix(times.failed_at),
            expired_at: unix(times.expired_at),
            cancelling_at: unix(times.cancelling_at),
            cancelled_at: unix(times.cancelled_at),
            request_counts: RequestCounts {
                total: batch.counts.total,
                completed: batch.counts.completed,
                failed: batch.counts.failed,
            },
            usage: batch.usage.into(),
            metadata: batch.metadata,
        }
    }
}

impl From<Vec<InputError>> for Errors {
    fn from(errors: Vec<InputError>) -> Self {
        let fault = |error: InputError| Fault {
            code: error.code,
            line: error.line,
            message: error.message,
            param: error.param,
        };
        Self {
            object: "list",
            data: errors.into_iter().map(fault).collect(),
        }
    }
}

impl From<domain::batch::Usage> for Usage {
    fn from(usage: domain::batch::Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens,
            },
            output_tokens: usage.output_tokens,
            output_tokens_details: OutputDetails {
                reasoning_tokens: usage.reasoning_tokens,
            },
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
        }
    }
}

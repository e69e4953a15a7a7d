//! `POST /v1/batches`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use domain::batch::{COMPLETION_WINDOW, Counts, Times, Usage, WINDOW};
use domain::limits::MAX_OPEN_BATCHES;
use domain::{Batch, BatchId, BatchStatus, FieldError};
use serde_json::Value;
use store::audit::{self, Act};
use store::files::File;
use store::{TenantTx, batches};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{BatchObject, ENDPOINT};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode};
use crate::extract::JsonBody;
use crate::files::{BATCH, usable};
use crate::idempotency::{Once, OnceHeader, Opened};
use crate::jobs::metadata;
use crate::uploads::create::ExpiresAfter;
use crate::uploads::fields;

/// The body, as the documentation shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a body is read field by field")]
struct NewBatch {
    /// A file of the purpose `batch`.
    input_file_id: String,
    /// Always `/v1/chat/completions`.
    endpoint: String,
    /// Always `24h`.
    completion_window: String,
    metadata: Option<BTreeMap<String, String>>,
    output_expires_after: Option<ExpiresAfter>,
}

/// Create a batch of chat completions. Its input is read a moment later.
#[utoipa::path(
    post,
    path = "/v1/batches",
    tag = "Batches",
    params(OnceHeader),
    request_body(content = NewBatch),
    responses((status = 200, body = BatchObject, description = "The batch, waiting for its turn."))
)]
pub async fn create_batch(
    State(state): State<AppState>,
    tenant: Tenant,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let asked = fields::of(&body)?;
    let input_file = fields::text(asked, "input_file_id")?;
    only(&body, "endpoint", ENDPOINT)?;
    only(&body, "completion_window", COMPLETION_WINDOW)?;
    let now = state.clock.now();
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let once = match once.open(&mut tx, &body, now).await? {
        Opened::Answered(answer) => return Ok(answer),
        Opened::New(once) => once,
    };
    let input = usable_input(&mut tx, input_file, state.limits.max_batch_bytes, now).await?;
    if batches::count_open(&mut tx).await? >= MAX_OPEN_BATCHES {
        let message = format!(
            "The project has {MAX_OPEN_BATCHES} batches that are not finished, which is as many as it may. Wait for \
             one, or cancel one."
        );
        return Err(ApiError::invalid_request(message).code(ErrorCode::TooManyBatches));
    }
    let batch = Batch {
        id: BatchId::new(),
        project_id: tenant.project_id,
        endpoint: ENDPOINT.to_owned(),
        input_file: input.id,
        output_expires_after_secs: fields::expires_after(asked, "output_expires_after")?,
        metadata: metadata(asked)?,
        status: BatchStatus::Validating,
        model: None,
        errors: None,
        counts: Counts::default(),
        usage: Usage::default(),
        output_file: None,
        error_file: None,
        created_at: now,
        expires_at: now + WINDOW,
        times: Times::default(),
    };
    batches::create(&mut tx, &batch).await?;
    let (id, project_id) = (batch.id, batch.project_id);
    let answer = once.keep(&mut tx, &BatchObject::from(batch)).await?;
    let act = Act::new("batch.created", "batch", id);
    audit::record(&mut tx, &tenant.actor(), &act, now).await?;
    tx.commit().await?;
    metrics::counter!("attune_batches_created_total").increment(1);
    tracing::info!(batch.id = %id, project.id = %project_id, "Created batch `{id}`");
    Ok(answer)
}

/// A field that must be there and has one value only.
fn only(body: &Value, field: &'static str, value: &'static str) -> Result<(), FieldError> {
    if body[field] == value {
        return Ok(());
    }
    let message = if body[field].is_null() {
        format!("is required: `{value}`")
    } else {
        format!("must be `{value}`: there is no other here")
    };
    Err(FieldError::new(field, message))
}

async fn usable_input(
    tx: &mut TenantTx,
    id: &str,
    max_bytes: u64,
    now: OffsetDateTime,
) -> Result<File, ApiError> {
    const PARAM: &str = "input_file_id";
    let file = usable::find(tx, (PARAM, id), ("a batch", BATCH), now).await?;
    if file.size_bytes > max_bytes {
        let message = format!(
            "The file `{id}` has {} bytes; the input of a batch may have {max_bytes}. Make several batches.",
            file.size_bytes
        );
        return Err(ApiError::invalid(PARAM, message));
    }
    Ok(file)
}

//! Judges are asked through the inference service, as the project would ask.

use std::time::Duration;

use axum::http::StatusCode;
use futures::{StreamExt as _, stream};
use grading::{Answer, AskError, Question, Reply};
use serde_json::Value;

use crate::auth::Tenant;
use crate::{InferenceClient, answer};

/// Judges of one request that are asked at the same time.
const AT_ONCE: usize = 4;
/// The longest a judge may think.
const TIMEOUT: Duration = Duration::from_mins(2);
/// An answer of a few tokens with its frame is far shorter.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What became of each question, in their order.
pub(super) async fn answers(
    inference: &InferenceClient,
    tenant: &Tenant,
    questions: Vec<Option<Question>>,
) -> Vec<Option<Answer>> {
    let asked = questions.into_iter().map(|question| async move {
        let question = question?;
        let answer = tokio::time::timeout(TIMEOUT, ask(inference, tenant, &question)).await;
        let answer = answer.unwrap_or_else(|_| Err("it took longer than 2 minutes".to_owned()));
        Some(answer.map_err(|reason| AskError {
            model: question.model,
            reason,
        }))
    });
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

/// Reasons are for the tenant: nothing of ours is in them, which the log has instead.
async fn ask(
    inference: &InferenceClient,
    tenant: &Tenant,
    question: &Question,
) -> Result<Reply, String> {
    let away = |error: reqwest::Error| {
        tracing::warn!(error = %domain::failure::error_chain(&error), "A judge could not be asked");
        "the service for answers is not available".to_owned()
    };
    let body = question.request.to_string();
    let answer = inference
        .send(tenant.project_id, &answer::request_id(), body.into())
        .await
        .map_err(away)?;
    let status = answer.status();
    let mut bytes = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(away)?);
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err("its answer is too long".to_owned());
        }
    }
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    // What a client's own request would be told; a refusal of our own settings or a fault would not.
    let is_clients = status.is_client_error()
        && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if is_clients && let Some(message) = value["error"]["message"].as_str() {
        return Err(message.chars().take(500).collect());
    }
    if !status.is_success() {
        return Err(format!("the service for answers said {}", status.as_u16()));
    }
    Reply::read(&value).ok_or_else(|| "its answer cannot be read".to_owned())
}

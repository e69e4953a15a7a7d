//! The answer to one line: asked of the inference service as a chat is, and written as a line of the output.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse as _;
use bytes::{Bytes, BytesMut};
use domain::ProjectId;
use domain::batch::Usage;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use store::batches::lines::{Answer, Line};
use uuid::Uuid;

use crate::InferenceClient;
use crate::chat;
use crate::error::ApiError;
use crate::throttle::{self, Throttle};

/// The longest answer that is kept.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// The longest an inference service may tell us to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(1);

/// What came of asking once.
pub(super) enum Asked {
    Answered(Answer),
    /// Not now: after so long, if the service said.
    Later(Option<Duration>),
    /// The project has had its requests or tokens of this minute: there are more after so long.
    Limited(Duration),
}

/// Asks once, if the project's limits let it. `text` is the line as it stands in the input.
pub(super) async fn ask(
    inference: &InferenceClient,
    throttle: &Throttle,
    project_id: ProjectId,
    line: &Line,
    text: &[u8],
) -> Asked {
    let request_id = format!("req_{}", Uuid::now_v7().simple());
    let mut request: Value = serde_json::from_slice(text).unwrap_or_default();
    let body = request["body"].take();
    if let Err(error) = chat::check(&body) {
        let (status, body) = refusal(error).await;
        return Asked::Answered(written(line, &request_id, status, &body));
    }
    let hold = match throttle.take(project_id, throttle::estimate(&body)) {
        Ok(hold) => hold,
        Err(error) => {
            if let Some(wait) = error.comes_too_soon() {
                return Asked::Limited(wait);
            }
            // It alone would take more than a minute has, so waiting would not help.
            let (status, body) = refusal(error).await;
            return Asked::Answered(written(line, &request_id, status, &body));
        }
    };
    let bytes = Bytes::from(body.to_string());
    let (asked, took) = match inference.send(project_id, &request_id, bytes).await {
        Ok(answer) => heard(answer, line, &request_id).await,
        Err(_) => (Asked::Later(None), Some(0)),
    };
    if let (Some(hold), Some(tokens)) = (hold, took) {
        hold.settle(tokens);
    }
    asked
}

/// What became of it, and how many tokens that took, if it can be told.
async fn heard(answer: reqwest::Response, line: &Line, request_id: &str) -> (Asked, Option<u64>) {
    let status = answer.status();
    if is_passing(status) {
        return (Asked::Later(wait(&answer)), Some(0));
    }
    if status.is_server_error() {
        let cause = format!("the inference service answered {status}");
        let (status, body) = refusal(ApiError::internal(cause)).await;
        let written = written(line, request_id, status, &body);
        return (Asked::Answered(written), Some(0));
    }
    let (status, body, took) = match read(answer).await {
        Ok(Some(body)) if status.is_success() => {
            let took = body["usage"]["total_tokens"].as_u64();
            (status, body, took)
        }
        Ok(Some(body)) => (status, body, Some(0)),
        Ok(None) => {
            let cause = "the inference service's answer is no JSON, or too long";
            let (status, body) = refusal(ApiError::internal(cause)).await;
            (status, body, None)
        }
        // It broke off.
        Err(_) => return (Asked::Later(None), None),
    };
    let written = written(line, request_id, status, &body);
    (Asked::Answered(written), took)
}

/// A line that there was no time for. `code` says why.
pub(super) fn unanswered(line: &Line, code: &str, message: &str) -> String {
    let error = json!({"code": code, "message": message});
    let id = format!("batch_req_{}", Uuid::now_v7().simple());
    json!({"id": id, "custom_id": line.custom_id, "response": null, "error": error}).to_string()
}

/// The answer to a line that is not there any more.
pub(super) fn without_input(line: &Line) -> Answer {
    let message = "The input file was deleted before this request was answered.";
    Answer {
        text: unanswered(line, "input_file_not_found", message),
        is_error: true,
        usage: Usage::default(),
    }
}

/// Whether the same request may be answered later. That the service does not believe us is a fault of our settings,
/// which somebody will put right, and not the line's.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 408 | 429 | 502 | 503 | 504)
}

fn wait(answer: &reqwest::Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let wait = Duration::from_secs(seconds.parse().ok()?);
    Some(wait.min(MAX_RETRY_AFTER))
}

async fn read(answer: reqwest::Response) -> reqwest::Result<Option<Value>> {
    let mut stream = answer.bytes_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.try_next().await? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice(&bytes).ok())
}

/// What a client that asked directly would have been answered.
async fn refusal(error: ApiError) -> (StatusCode, Value) {
    let response = error.into_response();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), MAX_ANSWER_BYTES).await;
    let body = body.map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default());
    (status, body.unwrap_or_default())
}

fn written(line: &Line, request_id: &str, status: StatusCode, body: &Value) -> Answer {
    let is_error = !status.is_success();
    let usage = if is_error {
        Usage::default()
    } else {
        usage(&body["usage"])
    };
    let text = json!({
        "id": format!("batch_req_{}", Uuid::now_v7().simple()),
        "custom_id": line.custom_id,
        "response": {"status_code": status.as_u16(), "request_id": request_id, "body": body},
        "error": null,
    });
    Answer {
        text: text.to_string(),
        is_error,
        usage,
    }
}

fn usage(counted: &Value) -> Usage {
    // Nobody writes so many tokens; what says otherwise must not overflow a sum.
    let tokens = |value: &Value| {
        value
            .as_u64()
            .filter(|tokens| *tokens < 1 << 32)
            .unwrap_or(0)
    };
    Usage {
        input_tokens: tokens(&counted["prompt_tokens"]),
        cached_tokens: tokens(&counted["prompt_tokens_details"]["cached_tokens"]),
        output_tokens: tokens(&counted["completion_tokens"]),
        reasoning_tokens: tokens(&counted["completion_tokens_details"]["reasoning_tokens"]),
    }
}

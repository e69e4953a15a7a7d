//! Chat completions: checked lightly here, answered by the inference service, passed through as they come.
//!
//! This service never loads a model. The inference service checks again that the project may use the model.

mod body;
mod broken;

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use domain::ProjectId;
use serde_json::Value;

use body::{ChatCompletion, ChatRequest};

use crate::auth::Tenant;
use crate::error::ApiError;
use crate::error::answer::SHOULD_RETRY;
use crate::extract::RawBody;
use crate::openapi::ServerSentEvent;
use crate::throttle::{self, TokenHold, metered};
use crate::{AppState, answer};

/// Beyond this the inference service is as good as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence: a long prompt on a slow device, before its first token.
const READ_TIMEOUT: Duration = Duration::from_mins(15);

/// The way to the inference service.
#[derive(Clone)]
pub struct InferenceClient {
    http: reqwest::Client,
    url: String,
    export_url: String,
    token: String,
}

impl InferenceClient {
    /// A client of the service at `base_url`. Nothing is sent yet.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(base_url: &str, token: String) -> reqwest::Result<Self> {
        // The service is our own, inside the same walls: a proxy for the outside is never on the way.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()?;
        Ok(Self {
            http,
            url: format!("{}/v1/chat/completions", base_url.trim_end_matches('/')),
            export_url: format!("{}/internal/export", base_url.trim_end_matches('/')),
            token,
        })
    }

    /// Sends a chat in the name of a project.
    pub(crate) async fn send(
        &self,
        project_id: ProjectId,
        request_id: &str,
        body: Bytes,
    ) -> reqwest::Result<reqwest::Response> {
        self.post(&self.url, project_id, request_id, body).await
    }

    /// A fine-tuned model as files that other programs load. Building it takes a while.
    pub(crate) async fn export(
        &self,
        tenant: &Tenant,
        asked: &Value,
    ) -> Result<reqwest::Response, ApiError> {
        let body = asked.to_string().into();
        let request_id = answer::request_id();
        let answer = self.post(&self.export_url, tenant.project_id, &request_id, body);
        checked(answer.await.map_err(ApiError::unavailable)?)
    }

    async fn post(
        &self,
        url: &str,
        project_id: ProjectId,
        request_id: &str,
        body: Bytes,
    ) -> reqwest::Result<reqwest::Response> {
        self.http
            .post(url)
            .bearer_auth(&self.token)
            .header("x-attune-project", project_id.to_string())
            .header("x-request-id", request_id)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .send()
            .await
    }
}

/// Answer a conversation, whole or as a stream of server-sent events.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "Chat",
    request_body(content = ChatRequest),
    responses(
        (status = 200, content(
            (ChatCompletion = "application/json"),
            (ServerSentEvent = "text/event-stream"),
        ), description = "The answer; as server-sent events when `stream` is true."),
    )
)]
pub async fn create_chat_completion(
    State(state): State<AppState>,
    tenant: Tenant,
    body: RawBody,
) -> Result<Response, ApiError> {
    check(&body.value)?;
    let hold = Hold::take(&state, tenant.project_id, &body.value)?;
    let answer = state
        .inference
        .send(tenant.project_id, &answer::request_id(), body.bytes)
        .await
        .map_err(ApiError::unavailable);
    match answer.and_then(checked) {
        Ok(answer) if answer.status().is_success() => {
            Ok(broken::told(hold.meter(passed_through(answer))))
        }
        // Nothing was computed for a request that was not taken.
        refused => {
            hold.refund();
            refused.map(passed_through)
        }
    }
}

/// The tokens that a chat is expected to take, if its project's are limited.
struct Hold {
    tokens: Option<TokenHold>,
    prompt_tokens: u64,
}

impl Hold {
    fn take(state: &AppState, project_id: ProjectId, request: &Value) -> Result<Self, ApiError> {
        let expected = throttle::estimate(request);
        Ok(Self {
            tokens: state.throttle.hold_tokens(project_id, expected)?,
            prompt_tokens: throttle::prompt(request),
        })
    }

    fn refund(self) {
        if let Some(tokens) = self.tokens {
            tokens.refund();
        }
    }

    /// Settles by what passes.
    fn meter(self, response: Response) -> Response {
        let Some(tokens) = self.tokens else {
            return response;
        };
        let is_stream = is_stream(response.headers());
        let (parts, body) = response.into_parts();
        let bytes = metered(
            body.into_data_stream(),
            tokens,
            self.prompt_tokens,
            is_stream,
        );
        Response::from_parts(parts, Body::from_stream(bytes))
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// The answer, unless it says that something is wrong on our side of the walls.
fn checked(answer: reqwest::Response) -> Result<reqwest::Response, ApiError> {
    match answer.status() {
        // The inference service did not believe us: our settings are wrong, not the client's key.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ApiError::internal(format!(
            "the inference service answered {}",
            answer.status()
        ))),
        // The inference service says so of what is meant for the client: it speaks of the project's own bucket.
        StatusCode::SERVICE_UNAVAILABLE if answer.headers().contains_key(SHOULD_RETRY) => {
            Ok(answer)
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Err(ApiError::unavailable(format!(
                "the inference service answered {}",
                answer.status()
            )))
        }
        status if status.is_server_error() => Err(ApiError::internal(format!(
            "the inference service answered {status}"
        ))),
        _ => Ok(answer),
    }
}

/// What can be said of a request without a model.
pub(crate) fn check(request: &Value) -> Result<(), ApiError> {
    if request["model"].as_str().is_none_or(str::is_empty) {
        let message = "`model` is missing: name a model of `GET /v1/models`.";
        return Err(ApiError::invalid("model", message));
    }
    if request["messages"].as_array().is_none_or(Vec::is_empty) {
        let message = "`messages` must be a list of at least one message.";
        return Err(ApiError::invalid("messages", message));
    }
    Ok(())
}

/// Status, type and bytes as they arrive. A client that leaves drops the stream, and with it the upstream
/// connection, which is how the inference service learns that nobody listens.
pub(crate) fn passed_through(answer: reqwest::Response) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    for name in [CONTENT_TYPE, RETRY_AFTER, SHOULD_RETRY] {
        if let Some(value) = answer.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    if is_stream(answer.headers()) {
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // nginx would otherwise hold tokens back until a buffer is full.
        response
            .headers_mut()
            .insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_conversation_needs_a_model_and_a_message() {
        for request in [
            json!({"messages": [{}]}),
            json!({"model": "", "messages": [{}]}),
            json!({"model": 3, "messages": [{}]}),
            json!({"model": "m"}),
            json!({"model": "m", "messages": []}),
            json!({"model": "m", "messages": "hello"}),
        ] {
            assert!(check(&request).is_err(), "{request}");
        }
        assert!(check(&json!({"model": "m", "messages": [{}], "unknown": 1})).is_ok());
    }
}

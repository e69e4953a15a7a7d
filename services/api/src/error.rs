//! Every answer that is not a success, in OpenAI's error body. The one place that knows status codes.
//!
//! A permanent conflict is a 400, never a 409: clients retry a 409 as if it were a lock. A 5xx shows a request
//! id and nothing else; its causes are logged here, once.

use std::error::Error as StdError;

use artifacts::ArtifactError;
use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::FieldError;
use domain::batch::BatchError;
use domain::job::TransitionError;
use domain::upload::UploadError;
use serde::Serialize;
use store::StoreError;

use crate::{answer, extract};

type Cause = Box<dyn StdError + Send + Sync>;

/// How long a client should wait before it tries again what was unavailable.
const RETRY_AFTER_SECS: u64 = 5;

/// An error as a client sees it, and its cause as only the log does.
#[derive(Debug)]
pub struct ApiError {
    kind: Kind,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    cause: Option<Cause>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    TooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    Internal,
    Unavailable,
    StorageFull,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// OpenAI's word for the family of errors.
    fn family(self) -> &'static str {
        match self {
            Self::Internal | Self::StorageFull => "server_error",
            Self::Unavailable => "service_unavailable_error",
            _ => "invalid_request_error",
        }
    }
}

/// Something a client can ask for by its id or name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// An uploaded or produced file.
    File,
    /// A fine-tuning job.
    Job,
    /// A base or fine-tuned model.
    Model,
    /// A file that comes in parts.
    Upload,
    /// A batch of requests.
    Batch,
}

impl Thing {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Job => "fine-tuning job",
            Self::Model => "model",
            Self::Upload => "upload",
            Self::Batch => "batch",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::File => "file_not_found",
            Self::Job => "job_not_found",
            Self::Model => "model_not_found",
            Self::Upload => "upload_not_found",
            Self::Batch => "batch_not_found",
        }
    }
}

impl ApiError {
    /// The request's field `param` cannot be used; `message` says why and what would be right.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
            .param(param)
            .code("invalid_value")
    }

    /// The request as a whole cannot be used.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A thing that does not exist or that belongs to somebody else: the answer is the same for both.
    pub fn not_found(thing: Thing, id: &str) -> Self {
        let id = shorten(id);
        let message = format!("There is no {} `{id}` in this project.", thing.word());
        let param = if thing == Thing::Model { "model" } else { "id" };
        Self::new(Kind::NotFound, message)
            .param(param)
            .code(thing.code())
    }

    /// No such route.
    pub fn no_route(method: &str, path: &str) -> Self {
        let message = format!("There is no route `{method} {}`.", shorten(path));
        Self::new(Kind::NotFound, message).code("unknown_url")
    }

    /// The route exists, but not with this method.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("`{}` does not take the method {method}.", shorten(path));
        Self::new(Kind::MethodNotAllowed, message).code("method_not_allowed")
    }

    /// The request carries no key.
    pub fn missing_key() -> Self {
        let message =
            "You did not provide an API key. Send it as `Authorization: Bearer YOUR_KEY`.";
        Self::new(Kind::Unauthenticated, message).code("invalid_api_key")
    }

    /// The key is unknown, revoked or misspelled.
    pub fn wrong_key() -> Self {
        let message =
            "The API key is not valid. Check that it is complete and has not been revoked.";
        Self::new(Kind::Unauthenticated, message).code("invalid_api_key")
    }

    /// The key is good, but not for this.
    pub fn admin_key() -> Self {
        let message = "This is an admin key. It belongs to no project, so it cannot use files, jobs, \
                       models or chat: use a project's API key.";
        Self::new(Kind::Forbidden, message).code("admin_key_not_allowed")
    }

    /// The body is longer than `max_bytes`.
    pub fn too_large(what: &str, max_bytes: u64) -> Self {
        let message = format!("The {what} is larger than the allowed {max_bytes} bytes.");
        Self::new(Kind::TooLarge, message).code("request_too_large")
    }

    /// The body is of a type that the route does not read.
    pub fn unsupported_media_type(wanted: &str) -> Self {
        let message = format!("The request's body must be sent with `content-type: {wanted}`.");
        Self::new(Kind::UnsupportedMediaType, message).code("unsupported_media_type")
    }

    /// The asked-for range lies beyond the end.
    pub fn range_not_satisfiable(size_bytes: u64) -> Self {
        let message = format!("The range lies outside the file, which has {size_bytes} bytes.");
        Self::new(Kind::RangeNotSatisfiable, message).code("range_not_satisfiable")
    }

    /// Our own fault.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(Kind::Internal, "")
        }
    }

    /// Something we depend on is away; the same request may succeed soon.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(Kind::Unavailable, "")
        }
        .code("unavailable")
    }

    /// Names the request's field at fault.
    #[must_use]
    pub fn param(self, param: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..self
        }
    }

    /// Sets the stable word that programs can rely on.
    #[must_use]
    pub fn code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            param: None,
            code: None,
            cause: None,
        }
    }

    /// What a client reads. A server's error has one fixed sentence per kind.
    fn shown_message(&self) -> String {
        let what = match self.kind {
            Kind::Internal => "The server had an error while it processed your request.",
            Kind::Unavailable => {
                "A part of the service is not available right now; try again soon."
            }
            Kind::StorageFull => "The service's storage has no space left.",
            _ => return self.message.clone(),
        };
        format!(
            "{what} If it lasts, tell your operator this request id: {}",
            answer::request_id()
        )
    }

    fn log(&self) {
        let Some(cause) = &self.cause else { return };
        let chain = domain::failure::error_chain(cause.as_ref());
        if self.kind == Kind::Internal {
            tracing::error!(error = %chain, "A request failed: {chain}");
        } else {
            tracing::warn!(error = %chain, "A request could not be served: {chain}");
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: String,
    r#type: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let error = Fields {
            message: self.shown_message(),
            r#type: self.kind.family(),
            param: self.param.as_deref(),
            code: self.code,
        };
        let mut response = (self.kind.status(), Json(Body { error })).into_response();
        if self.kind == Kind::Unavailable {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
        }
        response
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        let message = error.to_string();
        Self::invalid(error.field, message)
    }
}

impl From<TransitionError> for ApiError {
    fn from(error: TransitionError) -> Self {
        Self::invalid_request(error.to_string()).code("job_is_final")
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let code = match error {
            UploadError::Expired => "upload_expired",
            UploadError::Final(_) => "upload_is_final",
        };
        Self::invalid_request(sentence(&error)).code(code)
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        Self::invalid_request(sentence(&error)).code("batch_is_final")
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::NoSpace { .. } => {
                let full = Self::new(Kind::StorageFull, "").code("storage_full");
                Self {
                    cause: Some(error.into()),
                    ..full
                }
            }
            error if error.is_transient() => Self::unavailable(error),
            error => Self::internal(error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NulCharacter { field } => Self::invalid(field, error.to_string()),
            StoreError::UnknownCursor => extract::unknown_cursor(),
            StoreError::Transition(error) => error.into(),
            error if error.is_transient() => Self::unavailable(error),
            error => Self::internal(error),
        }
    }
}

/// An error's text as a client reads it.
fn sentence(error: &impl StdError) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), chars.as_str())
}

/// What a client sent, as an error repeats it: no longer than an id needs.
fn shorten(text: &str) -> String {
    if text.chars().count() <= 160 {
        text.to_owned()
    } else {
        text.chars().take(159).collect::<String>() + "…"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(error: ApiError) -> (StatusCode, serde_json::Value) {
        let response = error.into_response();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn every_body_has_all_four_keys() {
        for error in [
            ApiError::invalid_request("no"),
            ApiError::not_found(Thing::File, "file-1"),
            ApiError::internal("boom"),
            ApiError::missing_key(),
        ] {
            let (_, body) = body(error).await;
            let keys: Vec<_> = body["error"].as_object().unwrap().keys().cloned().collect();
            assert_eq!(keys, ["code", "message", "param", "type"]);
        }
    }

    #[tokio::test]
    async fn a_server_error_tells_nothing_of_its_cause() {
        for error in [
            ApiError::internal("at /secret/path"),
            ApiError::unavailable("at /secret/path"),
        ] {
            let (status, body) = body(error).await;
            assert!(status.is_server_error());
            assert!(!body.to_string().contains("secret"), "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_unavailable_says_when_to_come_back() {
        let response = ApiError::unavailable("away").into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "5");
    }

    #[tokio::test]
    async fn a_huge_id_is_repeated_short() {
        let (_, body) = body(ApiError::not_found(Thing::Model, &"x".repeat(100_000))).await;
        assert!(body.to_string().len() < 500);
    }
}

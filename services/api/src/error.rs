//! Every answer that is not a success, in OpenAI's error body. The one place that knows status codes.
//!
//! A permanent conflict is a 400, never a 409: clients retry a 409 as if it were a lock, and here it is one. A 5xx shows a request
//! id and nothing else; its causes are logged here, once.

use std::error::Error as StdError;
use std::time::Duration;

use artifacts::ArtifactError;
use axum::Json;
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::batch::BatchError;
use domain::job::TransitionError;
use domain::upload::UploadError;
use domain::{FieldError, Scope, Scopes};
use serde::Serialize;
use store::StoreError;
use store::quotas::QuotaExceeded;

use crate::{answer, extract};

type Cause = Box<dyn StdError + Send + Sync>;

/// How long a client should wait before it tries again what was unavailable.
const RETRY_AFTER_SECS: u64 = 5;

/// More exact than the standard's header, whose unit is the second. Read by OpenAI's SDKs.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Overrides what OpenAI's SDKs would do by themselves.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An error as a client sees it, and its cause as only the log does.
#[derive(Debug)]
pub struct ApiError {
    kind: Kind,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    cause: Option<Cause>,
    retry: Option<Retry>,
}

/// Whether the same request should be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Not by itself: it would be refused again. Clients' SDKs retry a 429 otherwise.
    Never,
    /// Not before this has passed.
    After(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    InFlight,
    KeyReused,
    TooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    Internal,
    Unavailable,
    StorageFull,
    RateLimited,
    QuotaExceeded,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::InFlight => StatusCode::CONFLICT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::RateLimited | Self::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// OpenAI's word for the family of errors.
    fn family(self) -> &'static str {
        match self {
            Self::Internal | Self::StorageFull => "server_error",
            Self::Unavailable => "service_unavailable_error",
            Self::RateLimited => "rate_limit_error",
            Self::QuotaExceeded => "insufficient_quota",
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
    /// A project of the organization.
    Project,
    /// An API key, of a project or of the organization.
    ApiKey,
    /// A service account of a project.
    ServiceAccount,
    /// A user of the organization or of a project.
    User,
    /// A permission to use a model.
    Permission,
    /// An address that is told of events.
    WebhookEndpoint,
    /// The limits of a project.
    RateLimit,
}

impl Thing {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Job => "fine-tuning job",
            Self::Model => "model",
            Self::Upload => "upload",
            Self::Batch => "batch",
            Self::Project => "project",
            Self::ApiKey => "API key",
            Self::ServiceAccount => "service account",
            Self::User => "user",
            Self::Permission => "permission",
            Self::WebhookEndpoint => "webhook endpoint",
            Self::RateLimit => "rate limit",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::File => "file_not_found",
            Self::Job => "job_not_found",
            Self::Model => "model_not_found",
            Self::Upload => "upload_not_found",
            Self::Batch => "batch_not_found",
            Self::Project => "project_not_found",
            Self::ApiKey => "api_key_not_found",
            Self::ServiceAccount => "service_account_not_found",
            Self::User => "user_not_found",
            Self::Permission => "permission_not_found",
            Self::WebhookEndpoint => "webhook_endpoint_not_found",
            Self::RateLimit => "rate_limit_not_found",
        }
    }

    /// Where one would be.
    fn place(self) -> &'static str {
        match self {
            Self::File | Self::Job | Self::Model | Self::Upload | Self::Batch => "in this project",
            _ => "here",
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
        let message = format!("There is no {} `{id}` {}.", thing.word(), thing.place());
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

    /// The same request is being carried out by another connection. The one conflict that goes away by itself.
    pub fn request_in_flight() -> Self {
        let message =
            "The same request is being carried out right now. Send it again to get its answer.";
        Self::new(Kind::InFlight, message).code("request_in_flight")
    }

    /// The request's idempotency key belongs to another request.
    pub fn idempotency_key_reused() -> Self {
        let message = "This `Idempotency-Key` was used for a request with another body. Use a new key for a new request.";
        Self::new(Kind::KeyReused, message)
            .param("Idempotency-Key")
            .code("idempotency_key_reused")
    }

    /// The key is good, but an organization is administered by others.
    pub fn admin_key_needed() -> Self {
        let message = "This needs an admin key of the organization, or a user who is its owner.";
        Self::new(Kind::Forbidden, message).code("admin_key_required")
    }

    /// The key is limited to other areas.
    pub fn missing_scope(scopes: &Scopes, areas: &[Scope]) -> Self {
        let list = |words: Vec<String>| words.join("`, `");
        let message = format!(
            "This key is limited to the scopes `{}`. This request needs one of `{}`.",
            list(scopes.words()),
            list(areas.iter().map(ToString::to_string).collect())
        );
        Self::new(Kind::Forbidden, message).code("missing_scope")
    }

    /// The key is limited to reading.
    pub fn read_only_key() -> Self {
        let message = "This key has the scope `read_only`, so it can change and compute nothing.";
        Self::new(Kind::Forbidden, message).code("missing_scope")
    }

    /// The role does not allow it.
    pub fn viewer() -> Self {
        let message = "You are a viewer of this project, so you can change and compute nothing: \
                       an administrator can make you a member.";
        Self::new(Kind::Forbidden, message).code("insufficient_role")
    }

    /// The bearer token is not good; `why` continues "it is not valid:".
    pub fn wrong_token(why: &str) -> Self {
        let message = format!("The bearer token is not valid: {why}.");
        Self::new(Kind::Unauthenticated, message).code("invalid_token")
    }

    /// The user may use no project at all.
    pub fn no_project() -> Self {
        let message = "You are signed in, but no project is open to you: an administrator can add \
                       you to one.";
        Self::new(Kind::Forbidden, message).code("no_project")
    }

    /// The user did not say which project is meant.
    pub fn several_projects() -> Self {
        let message = "Several projects are open to you: name one in the header `OpenAI-Project`.";
        Self::invalid("OpenAI-Project", message)
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

    /// The project has had its `what` of this minute, `limit` of them.
    pub fn rate_limited(what: &str, limit: u64, wait: Duration) -> Self {
        let message = format!(
            "Rate limit reached: this project may have {limit} {what} a minute. Try again in {:.3} s.",
            wait.as_secs_f64()
        );
        Self {
            retry: Some(Retry::After(wait)),
            ..Self::new(Kind::RateLimited, message).code("rate_limit_exceeded")
        }
    }

    /// The request alone is expected to take more tokens than a minute has.
    pub fn never_fits(expected: u64, limit: u64) -> Self {
        let message = format!(
            "This request is expected to take {expected} tokens, and this project may take {limit} a minute. Shorten the \
             messages or lower `max_completion_tokens`."
        );
        Self {
            retry: Some(Retry::Never),
            ..Self::new(Kind::RateLimited, message).code("rate_limit_exceeded")
        }
    }

    /// The project was archived while the request was under way. The next one is not let in.
    pub fn project_archived() -> Self {
        let message = "The project is archived: nothing begins in it any more.";
        Self::invalid_request(message).code("project_archived")
    }

    /// The project would use more than it may.
    pub fn quota_exceeded(exceeded: &QuotaExceeded) -> Self {
        Self {
            retry: Some(Retry::Never),
            ..Self::new(Kind::QuotaExceeded, exceeded.to_string()).code("insufficient_quota")
        }
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

    /// After how long the same request may be let through, if all that is wrong is that it comes too soon.
    pub(crate) fn comes_too_soon(&self) -> Option<Duration> {
        match self.retry {
            Some(Retry::After(wait)) => Some(wait),
            _ => None,
        }
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
            retry: None,
        }
    }

    /// The body alone, for a stream whose status was sent long ago.
    pub(crate) fn into_body(self) -> serde_json::Value {
        self.log();
        serde_json::json!({"error": {
            "message": self.shown_message(),
            "type": self.kind.family(),
            "param": self.param,
            "code": self.code,
        }})
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
        let headers = response.headers_mut();
        if self.kind == Kind::Unavailable {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
        }
        match self.retry {
            Some(Retry::Never) => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Some(Retry::After(wait)) => {
                let ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
                headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
                headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
            }
            None => {}
        }
        if self.kind == Kind::InFlight {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("true"));
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
            StoreError::Archived => Self::project_archived(),
            StoreError::Quota(exceeded) => Self::quota_exceeded(&exceeded),
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

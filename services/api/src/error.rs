//! Every answer that is not a success, in OpenAI's error body. The one place that knows status codes.
//!
//! A permanent conflict is a 400, not a 409: clients retry a 409 as if it were a lock, and here it is one, but for what was
//! [made before](ApiError::already_made), which says that it is none. A 5xx shows a request
//! id and nothing else; its causes are logged here, once. What is said in each case stands in a file by what it is about.

pub(crate) mod answer;
mod causes;
mod code;
mod limits;
mod missing;
mod request;
mod rights;

pub use code::ErrorCode;
pub use missing::Thing;

use std::error::Error as StdError;
use std::time::Duration;

use artifacts::OwnBucketFault;
use axum::http::StatusCode;

/// How long a client should wait before it tries again what a project's own bucket was away for.
const OWN_BUCKET_AGAIN: Duration = Duration::from_secs(5);

type Cause = Box<dyn StdError + Send + Sync>;

/// An error as a client sees it, and its cause as only the log does.
#[derive(Debug)]
pub struct ApiError {
    kind: Kind,
    message: String,
    param: Option<String>,
    code: Option<ErrorCode>,
    cause: Option<Cause>,
    retry: Option<Retry>,
}

/// Whether the same request should be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Not by itself: it would be refused again. Clients' SDKs retry a 429 otherwise.
    Never,
    /// Not by itself either, since nobody waits as long, but it may succeed once this has passed.
    Later(Duration),
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
    AlreadyMade,
    KeyReused,
    TooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    Internal,
    Unavailable,
    OwnBucket,
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
            Self::InFlight | Self::AlreadyMade => StatusCode::CONFLICT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::OwnBucket => StatusCode::SERVICE_UNAVAILABLE,
            Self::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::RateLimited | Self::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// OpenAI's word for the family of errors.
    fn family(self) -> &'static str {
        match self {
            Self::Internal | Self::StorageFull => "server_error",
            Self::Unavailable | Self::OwnBucket => "service_unavailable_error",
            Self::RateLimited => "rate_limit_error",
            Self::QuotaExceeded => "insufficient_quota",
            _ => "invalid_request_error",
        }
    }
}

impl ApiError {
    /// The request's field `param` cannot be used; `message` says why and what would be right.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
            .param(param)
            .code(ErrorCode::InvalidValue)
    }

    /// The request as a whole cannot be used.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
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
        .code(ErrorCode::Unavailable)
    }

    /// The project's own bucket is away or refuses us: not our fault, so the answer says whose. Trying again helps only
    /// where it may pass.
    pub fn own_bucket(fault: OwnBucketFault, cause: impl Into<Cause>) -> Self {
        let retry = if fault.may_pass {
            Retry::After(OWN_BUCKET_AGAIN)
        } else {
            Retry::Never
        };
        Self {
            cause: Some(cause.into()),
            retry: Some(retry),
            code: ErrorCode::named(fault.code),
            ..Self::new(Kind::OwnBucket, fault.message)
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
    pub fn code(self, code: ErrorCode) -> Self {
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
}

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse as _;

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

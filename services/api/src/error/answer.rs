//! An error on its way to the client: the body, the headers that say whether to try again, and the line in the log.

use axum::Json;
use axum::http::HeaderValue;
use axum::http::header::{HeaderName, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{ApiError, ErrorCode, Kind, Retry};
use crate::answer;

/// How long a client should wait before it tries again what was unavailable.
const RETRY_AFTER_SECS: u64 = 5;

/// More exact than the standard's header, whose unit is the second. Read by OpenAI's SDKs.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Overrides what OpenAI's SDKs would do by themselves.
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl ApiError {
    /// The body alone, for a stream whose status was sent long ago.
    pub(crate) fn into_body(self) -> serde_json::Value {
        self.into_body_of(&answer::request_id())
    }

    /// The same for a stream that goes on after its request's handler has returned: nobody knows the request's id there.
    pub(crate) fn into_body_of(self, request_id: &str) -> serde_json::Value {
        self.log();
        serde_json::json!({"error": {
            "message": self.shown_message(request_id),
            "type": self.kind.family(),
            "param": self.param,
            "code": self.code,
        }})
    }

    /// What a client reads. A server's error has one fixed sentence per kind.
    fn shown_message(&self, request_id: &str) -> String {
        let what = match self.kind {
            Kind::Internal => "The server had an error while it processed your request.",
            Kind::Unavailable => {
                "A part of the service is not available right now; try again soon."
            }
            Kind::StorageFull => "The service's storage has no space left.",
            _ => return self.message.clone(),
        };
        format!("{what} If it lasts, tell your operator this request id: {request_id}")
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
    code: Option<ErrorCode>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let error = Fields {
            message: self.shown_message(&answer::request_id()),
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
            Some(Retry::Later(wait)) => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
                headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
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

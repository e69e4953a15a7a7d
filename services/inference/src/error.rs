//! What a request can fail with, and the one place that turns it into a status and a body.

use artifacts::OwnBucketFault;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// When to come back after being turned away. Generating an answer takes seconds.
const RETRY_AFTER_SECS: u64 = 2;

/// Says to OpenAI's SDKs whether to send a request again. To the API it says that the answer is meant for the client.
const SHOULD_RETRY: &str = "x-should-retry";

/// A chat request that gets no answer, or no more of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChatError {
    /// The internal token is missing or wrong.
    #[error("the internal token is missing or wrong")]
    Unauthorized,
    /// The request says something it must not.
    #[error("{message}")]
    Invalid {
        /// For people: what is wrong and what would be right.
        message: String,
        /// The field at fault.
        param: Option<String>,
        /// Stable and machine-readable.
        code: Option<&'static str>,
    },
    /// There is no such model, or it is another project's, which is the same.
    #[error("The model `{0}` does not exist or you do not have access to it.")]
    ModelNotFound(String),
    /// The request leaves no room for an answer.
    #[error(
        "This model's maximum context length is {context_length} tokens. However, your messages \
         resulted in {prompt_tokens} tokens. Please reduce the length of the messages."
    )]
    ContextLengthExceeded {
        /// What the model can take in, prompt and answer together.
        context_length: usize,
        /// What the rendered messages take.
        prompt_tokens: usize,
    },
    /// There is no route of this name.
    #[error("Unknown request URL: there is no such route here.")]
    NoRoute,
    /// The route exists, the method does not.
    #[error("This route does not answer that method.")]
    MethodNotAllowed,
    /// The body is larger than allowed.
    #[error("The request body is too large.")]
    BodyTooLarge,
    /// Too many requests wait already.
    #[error("The server is overloaded. Please try again in a moment.")]
    Overloaded,
    /// The bucket of the model's own project is away or refuses us.
    #[error("{}", .fault.message)]
    OwnBucket {
        /// What its project is told.
        fault: OwnBucketFault,
        /// How we know.
        #[source]
        cause: anyhow::Error,
    },
    /// Postgres or S3 is away, or this service is stopping.
    #[error("The service is temporarily unavailable. Please try again in a moment.")]
    Unavailable(#[source] anyhow::Error),
    /// A fault of ours.
    #[error("The server had an error while processing your request.")]
    Internal(#[from] anyhow::Error),
}

impl ChatError {
    /// A field that says something it must not.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
            param: Some(param.into()),
            code: Some("invalid_value"),
        }
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Invalid { .. } | Self::ContextLengthExceeded { .. } => StatusCode::BAD_REQUEST,
            Self::ModelNotFound(_) | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Overloaded | Self::OwnBucket { .. } | Self::Unavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body. Beyond the request's own faults it says nothing but where the log has more.
    pub(crate) fn body(&self, request_id: &str) -> ErrorBody {
        let message = match self {
            Self::Internal(_) | Self::Unavailable(_) => format!("{self} (request `{request_id}`)"),
            _ => self.to_string(),
        };
        ErrorBody {
            error: ErrorDetail {
                message,
                kind: self.kind(),
                param: self.param(),
                code: self.code(),
            },
        }
    }

    /// The whole answer. Faults of the installation are logged here, once, with their causes.
    pub(crate) fn respond(&self, request_id: &str) -> Response {
        self.log(request_id);
        let mut response = (self.status(), Json(self.body(request_id))).into_response();
        let may_pass = match self {
            Self::OwnBucket { fault, .. } => fault.may_pass,
            Self::Overloaded | Self::Unavailable(_) => true,
            _ => false,
        };
        if let Self::OwnBucket { fault, .. } = self {
            let again = if fault.may_pass { "true" } else { "false" };
            let again = HeaderValue::from_static(again);
            response.headers_mut().insert(SHOULD_RETRY, again);
        }
        if may_pass {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
        }
        response
    }

    /// Logs what an operator must see; what the client did wrong is the client's business.
    pub(crate) fn log(&self, request_id: &str) {
        match self {
            Self::Internal(cause) => {
                tracing::error!(request.id = request_id, "Chat request failed: {cause:#}");
            }
            Self::Unavailable(cause) | Self::OwnBucket { cause, .. } => {
                tracing::warn!(
                    request.id = request_id,
                    "Chat request turned away: {cause:#}"
                );
            }
            _ => {}
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Overloaded | Self::OwnBucket { .. } | Self::Unavailable(_) => {
                "service_unavailable_error"
            }
            Self::Internal(_) => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn param(&self) -> Option<String> {
        match self {
            Self::Invalid { param, .. } => param.clone(),
            Self::ModelNotFound(_) => Some("model".to_owned()),
            Self::ContextLengthExceeded { .. } => Some("messages".to_owned()),
            _ => None,
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::Unauthorized => Some("invalid_api_key"),
            Self::Invalid { code, .. } => *code,
            Self::ModelNotFound(_) => Some("model_not_found"),
            Self::ContextLengthExceeded { .. } => Some("context_length_exceeded"),
            Self::NoRoute => Some("unknown_url"),
            Self::MethodNotAllowed => Some("method_not_allowed"),
            Self::BodyTooLarge => Some("request_too_large"),
            Self::Overloaded => Some("server_is_overloaded"),
            Self::OwnBucket { fault, .. } => Some(fault.code),
            Self::Unavailable(_) => Some("service_unavailable"),
            Self::Internal(_) => Some("internal_error"),
        }
    }
}

/// The body of every error, in OpenAI's shape: all four keys always present.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody {
    /// The only key.
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorDetail {
    /// For people; may change.
    pub(crate) message: String,
    /// The kind of fault.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The field at fault.
    pub(crate) param: Option<String>,
    /// Stable and machine-readable.
    pub(crate) code: Option<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ChatRequest;

    #[test]
    fn an_internal_error_shows_the_request_and_nothing_else() {
        let error = ChatError::Internal(anyhow::anyhow!("password of /root/.pgpass"));
        let body = serde_json::to_value(error.body("req_1")).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"error": {
                "message": "The server had an error while processing your request. (request `req_1`)",
                "type": "server_error", "param": null, "code": "internal_error",
            }})
        );
    }

    /// The API passes them on, and its document lists every code.
    #[test]
    fn every_code_of_an_answer_is_in_the_document_of_the_api() {
        let document = include_str!("../../../openapi.yaml");
        let refused = |body: &str| ChatRequest::parse(body.as_bytes()).unwrap_err();
        let errors = [
            ChatError::invalid("n", "no"),
            refused(r#"{"model": 1}"#),
            refused(r#"{"messages": []}"#),
            refused(
                r#"{"model": "m", "modalities": ["audio"], "messages": [{"role": "user", "content": "a"}]}"#,
            ),
            ChatError::ModelNotFound("m".to_owned()),
            ChatError::ContextLengthExceeded {
                context_length: 1,
                prompt_tokens: 1,
            },
            ChatError::BodyTooLarge,
            ChatError::Overloaded,
            ChatError::Unavailable(anyhow::anyhow!("away")),
            ChatError::Internal(anyhow::anyhow!("broken")),
        ];
        let mut codes: Vec<&str> = errors.iter().map(|error| error.code().unwrap()).collect();
        codes.extend(OwnBucketFault::CODES);
        for code in codes {
            assert!(document.contains(&format!("- `{code}`: ")), "{code}");
        }
    }

    #[test]
    fn whoever_is_turned_away_learns_when_to_come_back() {
        let response = ChatError::Overloaded.respond("req_1");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn a_projects_own_bucket_is_named_to_the_client() {
        for may_pass in [true, false] {
            let fault = OwnBucketFault {
                code: "bucket_refused",
                message: "The project's own bucket `b` denied access.".to_owned(),
                may_pass,
            };
            let cause = anyhow::anyhow!("at 10.0.0.7");
            let error = ChatError::OwnBucket { fault, cause };
            let detail = error.body("req_1").error;
            assert_eq!(
                detail.message,
                "The project's own bucket `b` denied access."
            );
            assert_eq!(detail.code, Some("bucket_refused"));
            let headers = error.respond("req_1").headers().clone();
            assert_eq!(headers[SHOULD_RETRY], may_pass.to_string());
            assert_eq!(headers.contains_key(header::RETRY_AFTER), may_pass);
        }
    }

    #[test]
    fn a_missing_model_is_named_with_openais_code() {
        let error = ChatError::ModelNotFound("ft:x".to_owned());
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
        let detail = error.body("req_1").error;
        assert_eq!(
            (detail.param.as_deref(), detail.code),
            (Some("model"), Some("model_not_found"))
        );
    }
}

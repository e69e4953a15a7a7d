//! The id that joins an answer, the log lines about it and the API's own.

use std::panic::AssertUnwindSafe;

use anyhow::anyhow;
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;

use crate::error::ChatError;
use crate::random;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const MAX_LEN: usize = 128;

/// The id of one request: the API's, or a new one.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The id that [`attach`] put there.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(Self::new)
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    fn new() -> Self {
        let id = format!("req_{}", random::hex_digits());
        Self(HeaderValue::try_from(id).expect("hexadecimal digits are fit for a header"))
    }

    fn given(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(HEADER)?;
        let fit = |text: &str| {
            (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        value.to_str().is_ok_and(fit).then(|| Self(value.clone()))
    }
}

/// Gives every request an id and every answer the same one. A handler that panics answers like any other fault of ours.
pub(crate) async fn attach(mut request: Request, next: Next) -> Response {
    let id = RequestId::given(request.headers()).unwrap_or_else(RequestId::new);
    request.extensions_mut().insert(id.clone());
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|_| {
        ChatError::Internal(anyhow!("a handler panicked")).respond(id.as_str())
    });
    response.headers_mut().insert(HEADER, id.0);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_replaced() {
        let given = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            RequestId::given(&headers)
        };
        assert_eq!(given("req_1").unwrap().as_str(), "req_1");
        assert!(given("").is_none() && given("a b").is_none() && given(&"x".repeat(129)).is_none());
    }
}

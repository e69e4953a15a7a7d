//! What every answer carries, errors and panics included: a request id, the API's version, the time it took.
//!
//! Also what every request leaves behind: one log line and two metrics. Neither says whose request it was.

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::error::ApiError;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-client-request-id");
/// As OpenAI's.
const MAX_CLIENT_REQUEST_ID_BYTES: usize = 512;
const PROCESSING_MS_HEADER: HeaderName = HeaderName::from_static("openai-processing-ms");
const VERSION_HEADER: HeaderName = HeaderName::from_static("openai-version");
const VERSION: HeaderValue = HeaderValue::from_static("2020-10-01");

tokio::task_local! {
    static REQUEST_ID: String;
}

/// The id of the request that is being answered.
pub fn request_id() -> String {
    REQUEST_ID
        .try_with(Clone::clone)
        .unwrap_or_else(|_| "none".to_owned())
}

/// The outermost layer: names the request, runs it, adds the headers, measures.
pub async fn dress(request: Request, next: Next) -> Response {
    let id = format!("req_{}", Uuid::now_v7().simple());
    let started = Instant::now();
    let method = method_name(request.method());
    // The pattern, not the path: paths hold ids, and there is no end of those.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request.id = %id, http.method = method, http.route = %route,
        client.request_id = client_request_id(request.headers()));
    let mut response = REQUEST_ID
        .scope(id.clone(), next.run(request))
        .instrument(span.clone())
        .await;

    let elapsed = started.elapsed();
    let status = response.status().as_u16();
    let headers = response.headers_mut();
    headers.insert(
        REQUEST_ID_HEADER,
        HeaderValue::try_from(id).expect("letters and digits"),
    );
    headers.insert(VERSION_HEADER, VERSION);
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_MS_HEADER, HeaderValue::from(elapsed_ms));

    span.in_scope(|| {
        tracing::debug!(
            http.status = status,
            duration_ms = elapsed_ms,
            "{method} {route}: {status}"
        );
    });
    let labels = [("method", method.to_owned()), ("route", route)];
    metrics::histogram!("attune_http_request_duration_seconds", &labels)
        .record(elapsed.as_secs_f64());
    let [method, route] = labels;
    let labels = [method, route, ("status", status.to_string())];
    metrics::counter!("attune_http_requests_total", &labels).increment(1);
    response
}

/// The method, as logs and metrics name it. Any word may be sent as one, and each label of a metric stays in memory for good.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The client's own name for the request, if it is one that a log can hold.
fn client_request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(CLIENT_REQUEST_ID_HEADER)?.to_str().ok()?;
    (id.len() <= MAX_CLIENT_REQUEST_ID_BYTES).then_some(id)
}

/// A panic in a handler becomes an answer like any other error of ours.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is the layer's"
)]
pub fn after_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    ApiError::internal(format!("a handler panicked: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_a_client_made_up_is_no_label() {
        let made_up = Method::from_bytes(b"MADE-UP").unwrap();
        assert_eq!(method_name(&made_up), "other");
        assert_eq!(method_name(&Method::DELETE), "DELETE");
    }

    #[test]
    fn a_clients_id_is_logged_if_it_is_short_text() {
        let id = |id: &[u8]| {
            let id = HeaderValue::from_bytes(id).unwrap();
            let headers = HeaderMap::from_iter([(CLIENT_REQUEST_ID_HEADER, id)]);
            client_request_id(&headers).map(str::to_owned)
        };
        assert_eq!(id(b"mine-1").as_deref(), Some("mine-1"));
        assert_eq!(id(&[b'a'; 513]), None);
        assert_eq!(id(b"\xff"), None);
        assert_eq!(client_request_id(&HeaderMap::new()), None);
    }
}

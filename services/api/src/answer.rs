//! What every answer carries, errors and panics included: a request id, the API's version, the time it took.
//!
//! Also what every request leaves behind: one log line and two metrics. Neither says whose request it was.

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::http::header::HeaderName;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::error::ApiError;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
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
    let method = request.method().as_str().to_owned();
    // The pattern, not the path: paths hold ids, and there is no end of those.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request.id = %id, http.method = %method, http.route = %route);
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
    let labels = [("method", method), ("route", route)];
    metrics::histogram!("attune_http_request_duration_seconds", &labels)
        .record(elapsed.as_secs_f64());
    let [method, route] = labels;
    let labels = [method, route, ("status", status.to_string())];
    metrics::counter!("attune_http_requests_total", &labels).increment(1);
    response
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

//! Whether the service lives, whether it can work, and what it has done. For machines; no key is needed.

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{AppState, telemetry};

/// The type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a probe reads.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    status: &'static str,
    postgres: &'static str,
    storage: &'static str,
}

/// The process runs. Says nothing about what it depends on: restarting it would not help those.
#[utoipa::path(
    get,
    path = "/healthz",
    security(()),
    tag = "Health",
    responses((status = 200, body = String, content_type = "text/plain", description = "The process runs."))
)]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Postgres and S3 can be reached.
#[utoipa::path(
    get,
    path = "/readyz",
    security(()),
    tag = "Health",
    responses(
        (status = 200, body = Readiness, description = "Ready."),
        (status = 503, body = Readiness, description = "Something is away."),
    )
)]
pub async fn readyz(State(state): State<AppState>) -> Response {
    let (postgres, storage) = tokio::join!(state.store.ready(), state.buckets.shared().ready());
    if let Err(error) = &postgres {
        tracing::warn!(error = %domain::failure::error_chain(error), "Postgres is not ready");
    }
    if let Err(error) = &storage {
        tracing::warn!(error = %domain::failure::error_chain(error), "The bucket is not ready");
    }
    let word = |ok| if ok { "ready" } else { "unavailable" };
    let all = postgres.is_ok() && storage.is_ok();
    let readiness = Readiness {
        status: word(all),
        postgres: word(postgres.is_ok()),
        storage: word(storage.is_ok()),
    };
    if all {
        return Json(readiness).into_response();
    }
    let retry_after = [(RETRY_AFTER, HeaderValue::from_static("5"))];
    (
        StatusCode::SERVICE_UNAVAILABLE,
        retry_after,
        Json(readiness),
    )
        .into_response()
}

/// Counters and histograms of this process. No label names a tenant.
#[utoipa::path(
    get,
    path = "/metrics",
    security(()),
    tag = "Health",
    responses((status = 200, body = String, content_type = "text/plain", description = "Prometheus' text format."))
)]
pub async fn metrics() -> Response {
    let text = telemetry::record().map(PrometheusHandle::render);
    ([(CONTENT_TYPE, METRICS_TYPE)], text.unwrap_or_default()).into_response()
}

//! Every route of the service, in one table, and the layers around them.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Method;
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::error::ApiError;
use crate::{AppState, answer, chat, files, health, jobs, models, telemetry, uploads};

/// One method on one path.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path's pattern.
    pub path: &'static str,
    handler: fn() -> MethodRouter<AppState>,
}

macro_rules! route {
    ($method:ident $path:literal => $handler:expr) => {
        Route {
            method: Method::$method,
            path: $path,
            handler: || $handler,
        }
    };
}

/// Every route. A test asks each of them for another tenant's things; one without an entry there fails it.
pub static ROUTES: &[Route] = &[
    route!(GET "/healthz" => get(health::healthz)),
    route!(GET "/readyz" => get(health::readyz)),
    route!(GET "/metrics" => get(health::metrics)),
    route!(POST "/v1/files" => post(files::create_file)),
    route!(GET "/v1/files" => get(files::list_files)),
    route!(GET "/v1/files/{id}" => get(files::retrieve_file)),
    route!(DELETE "/v1/files/{id}" => delete(files::delete_file)),
    route!(GET "/v1/files/{id}/content" => get(files::retrieve_file_content)),
    route!(POST "/v1/uploads" => post(uploads::create_upload)),
    route!(POST "/v1/uploads/{id}/parts" => post(uploads::add_upload_part)),
    route!(POST "/v1/uploads/{id}/complete" => post(uploads::complete_upload)),
    route!(POST "/v1/uploads/{id}/cancel" => post(uploads::cancel_upload)),
    route!(POST "/v1/fine_tuning/jobs" => post(jobs::create_job)),
    route!(GET "/v1/fine_tuning/jobs" => get(jobs::list_jobs)),
    route!(GET "/v1/fine_tuning/jobs/{id}" => get(jobs::retrieve_job)),
    route!(POST "/v1/fine_tuning/jobs/{id}/cancel" => post(jobs::cancel_job)),
    route!(GET "/v1/fine_tuning/jobs/{id}/events" => get(jobs::list_job_events)),
    route!(GET "/v1/fine_tuning/jobs/{id}/checkpoints" => get(jobs::list_job_checkpoints)),
    route!(GET "/v1/models" => get(models::list_models)),
    // A model's name may hold a slash, raw or as `%2F`.
    route!(GET "/v1/models/{*model}" => get(models::retrieve_model)),
    route!(DELETE "/v1/models/{*model}" => delete(models::delete_model)),
    route!(POST "/v1/chat/completions" => post(chat::create_chat_completion)),
];

/// The whole service.
pub fn router(state: AppState) -> Router {
    dressed(ROUTES.iter().fold(Router::new(), |router, route| {
        router.route(route.path, (route.handler)())
    }))
    .with_state(state)
}

/// Adds what every answer has: the error body for what no route takes, for panics, and the headers.
fn dressed<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    telemetry::record();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        // Each handler that reads a body bounds it by itself, and answers in the error body.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(answer::after_panic))
        .layer(from_fn(answer::dress))
}

async fn no_route(request: Request) -> ApiError {
    ApiError::no_route(request.method().as_str(), request.uri().path())
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path())
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::StatusCode;
    use tower::ServiceExt as _;

    use super::*;

    async fn broken() -> &'static str {
        panic!("a secret")
    }

    #[tokio::test]
    async fn a_panic_is_answered_like_any_error() {
        let service = dressed(Router::new().route("/broken", get(broken)));
        let request = Request::get("/broken")
            .body(Body::empty())
            .expect("a request");
        let response = service.oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let id = response.headers()["x-request-id"]
            .to_str()
            .expect("ASCII")
            .to_owned();
        let body = to_bytes(response.into_body(), 4096).await.expect("a body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(
            message.contains(&id) && !message.contains("secret"),
            "{message}"
        );
        assert_eq!(body["error"]["type"], "server_error");
    }
}

//! Every route of the service, in one table, and the layers around them.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::Method;
use axum::middleware::from_fn;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::UtoipaMethodRouter;

use crate::error::ApiError;
use crate::{AppState, answer, chat, docs, files, health, jobs, models, telemetry};

/// One method on one path, and what its handler's `#[utoipa::path]` says of it.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path's pattern, as axum writes it.
    pub path: &'static str,
    pub(crate) documented: fn() -> UtoipaMethodRouter<AppState>,
}

/// The handler is named by the full path of the module that it stands in: `#[utoipa::path]` puts its description
/// there, beside it. A test holds method and path to what the description says.
macro_rules! route {
    ($method:ident $path:literal => $($handler:tt)+) => {
        Route {
            method: Method::$method,
            path: $path,
            documented: || utoipa_axum::routes!($($handler)+),
        }
    };
}

/// Every route: what is served, what the OpenAPI document describes, and what the test of isolation asks for another
/// tenant's things. One without an entry there fails it.
pub static ROUTES: &[Route] = &[
    route!(GET "/healthz" => health::healthz),
    route!(GET "/readyz" => health::readyz),
    route!(GET "/metrics" => health::metrics),
    route!(GET "/openapi.yaml" => docs::openapi_yaml),
    route!(GET "/openapi.json" => docs::openapi_json),
    route!(GET "/docs" => docs::docs),
    route!(GET "/docs/{*file}" => docs::docs_file),
    route!(POST "/v1/files" => files::create::create_file),
    route!(GET "/v1/files" => files::list::list_files),
    route!(GET "/v1/files/{id}" => files::retrieve::retrieve_file),
    route!(DELETE "/v1/files/{id}" => files::delete::delete_file),
    route!(GET "/v1/files/{id}/content" => files::content::retrieve_file_content),
    route!(POST "/v1/fine_tuning/jobs" => jobs::create::create_job),
    route!(GET "/v1/fine_tuning/jobs" => jobs::list::list_jobs),
    route!(GET "/v1/fine_tuning/jobs/{id}" => jobs::retrieve::retrieve_job),
    route!(POST "/v1/fine_tuning/jobs/{id}/cancel" => jobs::cancel::cancel_job),
    route!(GET "/v1/fine_tuning/jobs/{id}/events" => jobs::events::list_job_events),
    route!(GET "/v1/fine_tuning/jobs/{id}/checkpoints" => jobs::checkpoints::list_job_checkpoints),
    route!(GET "/v1/models" => models::list::list_models),
    // A model's name may hold a slash, raw or as `%2F`.
    route!(GET "/v1/models/{*model}" => models::retrieve::retrieve_model),
    route!(DELETE "/v1/models/{*model}" => models::delete::delete_model),
    route!(POST "/v1/chat/completions" => chat::create_chat_completion),
];

/// The whole service.
pub fn router(state: AppState) -> Router {
    dressed(ROUTES.iter().fold(Router::new(), |router, route| {
        let (_, _, handler) = (route.documented)();
        router.route(route.path, handler)
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
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn every_route_is_where_its_description_says() {
        for route in ROUTES {
            let (_, documented, _) = (route.documented)();
            let path = route.path.replace("{*", "{");
            assert_eq!(documented.paths.keys().collect::<Vec<_>>(), [&path]);
            let item = serde_json::to_value(&documented.paths[&path]).expect("JSON");
            let methods: Vec<&String> = item.as_object().expect("an item").keys().collect();
            assert_eq!(methods, [&route.method.as_str().to_lowercase()], "{path}");
        }
    }

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

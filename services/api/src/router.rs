//! Every route of the service, in one table, and the layers around them.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method};
use axum::middleware::{from_fn, map_request};
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::UtoipaMethodRouter;

use crate::error::ApiError;
use crate::{
    AppState, answer, audit_logs, auth, batches, chat, docs, files, graders, health, jobs, models,
    organization, permissions, rate_limits, telemetry, throttle, uploads, webhooks,
};

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
    route!(POST "/v1/uploads" => uploads::create::create_upload),
    route!(POST "/v1/uploads/{id}/parts" => uploads::add_part::add_upload_part),
    route!(POST "/v1/uploads/{id}/complete" => uploads::complete::complete_upload),
    route!(POST "/v1/uploads/{id}/cancel" => uploads::cancel::cancel_upload),
    route!(POST "/v1/batches" => batches::create::create_batch),
    route!(GET "/v1/batches" => batches::list::list_batches),
    route!(GET "/v1/batches/{id}" => batches::retrieve::retrieve_batch),
    route!(POST "/v1/batches/{id}/cancel" => batches::cancel::cancel_batch),
    route!(POST "/v1/fine_tuning/jobs" => jobs::create::create_job),
    route!(POST "/v1/fine_tuning/jobs/estimate" => jobs::estimate::estimate_job),
    route!(POST "/v1/fine_tuning/jobs/preview" => jobs::preview::preview_dataset),
    route!(GET "/v1/fine_tuning/jobs" => jobs::list::list_jobs),
    route!(GET "/v1/fine_tuning/jobs/{id}" => jobs::retrieve::retrieve_job),
    route!(POST "/v1/fine_tuning/jobs/{id}/cancel" => jobs::cancel::cancel_job),
    route!(POST "/v1/fine_tuning/jobs/{id}/pause" => jobs::pause::pause_job),
    route!(POST "/v1/fine_tuning/jobs/{id}/resume" => jobs::resume::resume_job),
    route!(GET "/v1/fine_tuning/jobs/{id}/events" => jobs::events::list_job_events),
    route!(GET "/v1/fine_tuning/jobs/{id}/metrics" => jobs::metrics::list_job_metrics),
    route!(GET "/v1/fine_tuning/jobs/{id}/checkpoints" => jobs::checkpoints::list_job_checkpoints),
    route!(POST "/v1/fine_tuning/alpha/graders/run" => graders::run::run_grader),
    route!(POST "/v1/fine_tuning/alpha/graders/validate" => graders::validate::validate_grader),
    route!(GET "/v1/models" => models::list::list_models),
    // A model's name may hold a slash, raw or as `%2F`.
    route!(GET "/v1/models/{*model}" => models::retrieve::retrieve_model),
    route!(GET "/v1/models/{*model}/download" => models::download::download_model),
    route!(GET "/v1/models/{*model}/limits" => models::limits::retrieve_model_limits),
    route!(DELETE "/v1/models/{*model}" => models::delete::delete_model),
    route!(POST "/v1/webhook_endpoints" => webhooks::create::create_webhook_endpoint),
    route!(GET "/v1/webhook_endpoints" => webhooks::list::list_webhook_endpoints),
    route!(GET "/v1/webhook_endpoints/{id}" => webhooks::retrieve::retrieve_webhook_endpoint),
    route!(POST "/v1/webhook_endpoints/{id}" => webhooks::update::update_webhook_endpoint),
    route!(DELETE "/v1/webhook_endpoints/{id}" => webhooks::delete::delete_webhook_endpoint),
    route!(POST "/v1/webhook_endpoints/{id}/rotate_secret" => webhooks::rotate_secret::rotate_webhook_secret),
    route!(POST "/v1/webhook_endpoints/{id}/test" => webhooks::test::test_webhook_endpoint),
    route!(GET "/v1/webhook_event_types" => webhooks::event_types::list_webhook_event_types),
    route!(POST "/v1/chat/completions" => chat::create_chat_completion),
    route!(POST "/v1/fine_tuning/checkpoints/{model}/permissions" => permissions::create_permissions),
    route!(GET "/v1/fine_tuning/checkpoints/{model}/permissions" => permissions::list_permissions),
    route!(DELETE "/v1/fine_tuning/checkpoints/{model}/permissions/{permission_id}" => permissions::delete_permission),
    route!(POST "/v1/organization/projects" => organization::projects::create_project),
    route!(GET "/v1/organization/projects" => organization::projects::list_projects),
    route!(GET "/v1/organization/projects/{project_id}" => organization::projects::retrieve_project),
    route!(POST "/v1/organization/projects/{project_id}" => organization::projects::modify_project),
    route!(POST "/v1/organization/projects/{project_id}/archive" => organization::projects::archive_project),
    route!(POST "/v1/organization/projects/{project_id}/api_keys" => organization::api_keys::create_project_api_key),
    route!(GET "/v1/organization/projects/{project_id}/api_keys" => organization::api_keys::list_project_api_keys),
    route!(GET "/v1/organization/projects/{project_id}/api_keys/{key_id}" => organization::api_keys::retrieve_project_api_key),
    route!(DELETE "/v1/organization/projects/{project_id}/api_keys/{key_id}" => organization::api_keys::delete_project_api_key),
    route!(POST "/v1/organization/projects/{project_id}/api_keys/{key_id}/rotate" => organization::api_keys::rotate_project_api_key),
    route!(POST "/v1/organization/projects/{project_id}/service_accounts" => organization::service_accounts::create_service_account),
    route!(GET "/v1/organization/projects/{project_id}/service_accounts" => organization::service_accounts::list_service_accounts),
    route!(GET "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}" => organization::service_accounts::retrieve_service_account),
    route!(DELETE "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}" => organization::service_accounts::delete_service_account),
    route!(POST "/v1/organization/projects/{project_id}/users" => organization::members::create_project_user),
    route!(GET "/v1/organization/projects/{project_id}/users" => organization::members::list_project_users),
    route!(GET "/v1/organization/projects/{project_id}/users/{user_id}" => organization::members::retrieve_project_user),
    route!(POST "/v1/organization/projects/{project_id}/users/{user_id}" => organization::members::modify_project_user),
    route!(DELETE "/v1/organization/projects/{project_id}/users/{user_id}" => organization::members::delete_project_user),
    route!(GET "/v1/organization/projects/{project_id}/rate_limits" => rate_limits::list_rate_limits),
    route!(POST "/v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}" => rate_limits::modify_rate_limit),
    route!(GET "/v1/organization/audit_logs" => audit_logs::list_audit_logs),
    route!(GET "/v1/organization/audit_logs/export" => audit_logs::export::export_audit_logs),
    route!(GET "/v1/organization/users" => organization::users::list_users),
    route!(GET "/v1/organization/users/{user_id}" => organization::users::retrieve_user),
    route!(POST "/v1/organization/users/{user_id}" => organization::users::modify_user),
    route!(DELETE "/v1/organization/users/{user_id}" => organization::users::delete_user),
    route!(POST "/v1/organization/admin_api_keys" => organization::admin_keys::create_admin_api_key),
    route!(GET "/v1/organization/admin_api_keys" => organization::admin_keys::list_admin_api_keys),
    route!(GET "/v1/organization/admin_api_keys/{key_id}" => organization::admin_keys::retrieve_admin_api_key),
    route!(DELETE "/v1/organization/admin_api_keys/{key_id}" => organization::admin_keys::delete_admin_api_key),
    route!(POST "/v1/organization/admin_api_keys/{key_id}/rotate" => organization::admin_keys::rotate_admin_api_key),
];

/// The whole service.
pub fn router(state: AppState) -> Router {
    // No pattern goes on after a catch-all: what lies below a model is found by the handler of the model itself.
    let patterns = ROUTES
        .iter()
        .filter(|route| !route.path.contains("{*model}/"));
    let routes = dressed(patterns.fold(Router::new(), |router, route| {
        let (_, _, handler) = (route.documented)();
        router.route(route.path, handler)
    }))
    .with_state(state);
    // A layer of the router itself would come after the choice of a route.
    Router::new()
        .fallback_service(routes)
        .layer(map_request(permissions::one_segment))
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
        .layer(from_fn(throttle::show))
        .layer(from_fn(auth::served::show))
        .layer(from_fn(answer::dress))
}

async fn no_route(request: Request) -> ApiError {
    ApiError::no_route(request.method().as_str(), request.uri().path())
}

async fn wrong_method(request: Request) -> Response {
    let path = request.uri().path();
    let mut answer = ApiError::method_not_allowed(request.method().as_str(), path).into_response();
    // axum would name the methods of the model itself.
    let last = path.rsplit('/').next().unwrap_or_default();
    let below_models = ROUTES
        .iter()
        .filter_map(|route| route.path.strip_prefix("/v1/models/{*model}/"));
    if path.starts_with("/v1/models/") && below_models.into_iter().any(|name| name == last) {
        let methods = HeaderValue::from_static("GET,HEAD");
        answer.headers_mut().insert(ALLOW, methods);
    }
    answer
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

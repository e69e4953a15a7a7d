//! The OpenAPI document and a page that shows it. The page's scripts are part of the binary: it needs no internet.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Redirect, Response};
use utoipa_swagger_ui::Config;

use crate::error::ApiError;
use crate::openapi;

/// The handlers of one process answer from these.
static YAML: LazyLock<String> = LazyLock::new(openapi::yaml);
static JSON: LazyLock<serde_json::Value> =
    LazyLock::new(|| serde_json::to_value(openapi::document()).expect("it can be written"));
static PAGE: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json").validator_url("none")));

/// The OpenAPI document as YAML.
#[utoipa::path(
    get,
    path = "/openapi.yaml",
    tag = "Documentation",
    security(()),
    responses((status = 200, body = Object, content_type = "application/yaml", description = "The document."))
)]
pub async fn openapi_yaml() -> Response {
    ([(CONTENT_TYPE, "application/yaml")], YAML.as_str()).into_response()
}

/// The OpenAPI document as JSON.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "Documentation",
    security(()),
    responses((status = 200, body = Object, description = "The document."))
)]
pub async fn openapi_json() -> Json<&'static serde_json::Value> {
    Json(&JSON)
}

/// The page that shows the document.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "Documentation",
    security(()),
    responses((status = 308, description = "The page is at `/docs/index.html`."))
)]
pub async fn docs() -> Redirect {
    Redirect::permanent("/docs/index.html")
}

/// A part of the page.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    tag = "Documentation",
    security(()),
    params(("file" = String, Path, description = "`index.html`, or what it asks for.")),
    responses(
        (status = 200, description = "The file.", content(
            (String = "text/html"),
            (String = "text/css"),
            (String = "text/javascript"),
            (String = "image/png"),
        )),
        (status = 404, body = crate::openapi::ErrorBody, description = "The page has no such part."),
    )
)]
pub async fn docs_file(Path(file): Path<String>) -> Result<Response, ApiError> {
    let found = utoipa_swagger_ui::serve(&file, PAGE.clone())
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let found = found.ok_or_else(|| ApiError::no_route("GET", &format!("/docs/{file}")))?;
    Ok((
        [(CONTENT_TYPE, found.content_type)],
        found.bytes.into_owned(),
    )
        .into_response())
}

//! What the OpenAPI document promises of each route, held against every answer that a test sees.

use std::sync::LazyLock;

use api::error::ErrorCode;
use api::router::{ROUTES, Route};
use reqwest::Method;
use serde_json::Value;

use super::Answer;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(api::openapi::document()).unwrap());

/// Fails the test if the answer is one that the document does not know.
#[track_caller]
pub(super) fn hold(method: &Method, path: &str, answer: &Answer) {
    if let Some(route) = route(method, path) {
        let path = route.path.replace("{*", "{");
        let method = route.method.as_str().to_lowercase();
        let responses = &DOCUMENT["paths"][&path][&method]["responses"];
        assert!(
            responses.get(answer.status.to_string()).is_some(),
            "openapi.yaml knows no {} of `{method} {path}`: {}",
            answer.status,
            answer.text
        );
    }
    if answer.status >= 400
        && let Ok(body) = serde_json::from_str::<Value>(&answer.text)
        && let Some(code) = body["error"]["code"].as_str()
    {
        assert!(
            ErrorCode::ALL.iter().any(|known| known.word() == code),
            "openapi.yaml knows no code `{code}`: {}",
            answer.text
        );
    }
}

/// The route that answers: of those whose pattern fits the path, the one that says most of it.
fn route(method: &Method, path: &str) -> Option<&'static Route> {
    let segments: Vec<&str> = path.split('/').collect();
    let literal = |route: &Route| {
        route
            .path
            .split('/')
            .filter(|part| !part.starts_with('{'))
            .count()
    };
    let fitting = || {
        ROUTES
            .iter()
            .filter(|route| fits(&route.path.split('/').collect::<Vec<_>>(), &segments))
    };
    let most = fitting().map(literal).max()?;
    let method = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    fitting().find(|route| literal(route) == most && route.method == *method)
}

fn fits(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([first, pattern @ ..], [_, ..]) if first.starts_with("{*") => {
            (1..=path.len()).any(|n| fits(pattern, &path[n..]))
        }
        ([first, pattern @ ..], [segment, path @ ..]) => {
            (first.starts_with('{') && !segment.is_empty() || first == segment)
                && fits(pattern, path)
        }
        _ => false,
    }
}

#[test]
fn the_route_that_answers_is_found() {
    let found = |method: Method, path: &str| route(&method, path).map(|route| route.path);
    for (method, path, pattern) in [
        (Method::GET, "/v1/files", Some("/v1/files")),
        (Method::HEAD, "/v1/files/f", Some("/v1/files/{id}")),
        (Method::GET, "/v1/models/a/b", Some("/v1/models/{*model}")),
        (
            Method::GET,
            "/v1/models/a/b/limits",
            Some("/v1/models/{*model}/limits"),
        ),
        (
            Method::POST,
            "/v1/fine_tuning/jobs/estimate",
            Some("/v1/fine_tuning/jobs/estimate"),
        ),
        (Method::GET, "/v1/fine_tuning/jobs/estimate", None),
        (Method::GET, "/v1/files/", None),
        (Method::GET, "/", None),
    ] {
        assert_eq!(found(method, path), pattern, "{path}");
    }
}

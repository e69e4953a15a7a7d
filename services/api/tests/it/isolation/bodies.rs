//! What bodies name. Which fields those are is read in the OpenAPI document, so that a new one is asked too.

use api::router::ROUTES;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use domain::ProjectId;
use reqwest::Method;
use serde_json::{Value, json};
use store::{Store, models};
use tokio::net::TcpListener;

use super::things::{Things, named};
use super::{anonymous, ask};
use crate::support::{Client, TestApp};

/// What the request of a new job names.
const JOB: &[&str] = &[
    "attune.replay.file",
    "model",
    "training_file",
    "validation_file",
];
/// It reads a grader and looks nothing up: no name means anything to it.
const LOOKS_NOTHING_UP: &str = "/v1/fine_tuning/alpha/graders/validate";

/// Whether a field of this name names a thing, so that it might be somebody else's.
fn names_a_thing(field: &str) -> bool {
    let whole = ["id", "ids", "file", "files", "model", "models", "key"];
    let endings = [
        "_id", "_ids", "_file", "_files", "_model", "_models", "_key", "_keys",
    ];
    whole.contains(&field) || endings.iter().any(|ending| field.ends_with(ending))
}

/// The fields below `schema` that name things, each by its whole path.
fn fields(document: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#'));
        return fields(document, schema.expect("it is there"), path, found);
    }
    for parts in ["allOf", "anyOf", "oneOf"] {
        for part in schema[parts].as_array().into_iter().flatten() {
            fields(document, part, path, found);
        }
    }
    if schema["items"].is_object() {
        fields(document, &schema["items"], path, found);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        if names_a_thing(name) && !found.contains(&path) {
            found.push(path.clone());
        }
        fields(document, field, &path, found);
    }
}

/// Every route with a JSON body, and the fields of it that name things.
fn naming_bodies() -> Vec<(&'static str, Vec<String>)> {
    let document = serde_json::to_value(api::openapi::document()).unwrap();
    let posts = ROUTES
        .iter()
        .filter(|route| route.method == Method::POST)
        .map(|route| route.path);
    let bodies = posts.filter(|path| *path != LOOKS_NOTHING_UP).map(|path| {
        let body = &document["paths"][path]["post"]["requestBody"]["content"];
        let mut found = Vec::new();
        // That every body has a schema is tested with the document.
        fields(
            &document,
            &body["application/json"]["schema"],
            "",
            &mut found,
        );
        (path, found)
    });
    bodies.filter(|(_, found)| !found.is_empty()).collect()
}

/// A body with this field that is answered well when each of its things is the asking tenant's own.
fn body(path: &str, field: &str, own: &Things) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let judge =
        json!({"type": "score_model", "name": "judge", "model": own.model, "input": messages});
    match path {
        "/v1/batches" => json!({
            "input_file_id": own.file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }),
        "/v1/chat/completions" => json!({"model": own.model, "messages": messages}),
        "/v1/fine_tuning/alpha/graders/run" if field.starts_with("grader.graders.") => json!({
            "grader": {"type": "multi", "name": "all", "graders": judge, "calculate_output": "judge"},
            "model_sample": "x",
        }),
        "/v1/fine_tuning/alpha/graders/run" => json!({"grader": judge, "model_sample": "x"}),
        "/v1/fine_tuning/checkpoints/{model}/permissions" => json!({"project_ids": [own.project]}),
        "/v1/organization/projects/{project_id}/api_keys" => {
            json!({"name": "ci", "service_account_id": own.service_account})
        }
        "/v1/organization/projects/{project_id}/users" => {
            json!({"user_id": own.user, "role": "member"})
        }
        "/v1/uploads/{id}/complete" => json!({"part_ids": [own.part]}),
        _ if path.starts_with("/v1/fine_tuning/jobs") => json!({
            "model": "tiny",
            "training_file": own.file,
            "validation_file": own.file,
            "attune": {"replay": {"file": own.file, "ratio": 0.5}},
        }),
        _ => panic!("{path} names things in its body, and needs one here"),
    }
}

/// The body with another thing in one of its fields.
fn naming(mut body: Value, field: &str, things: &Things) -> Value {
    let name = field.rsplit('.').next().unwrap_or(field);
    let thing = things
        .called(name)
        .unwrap_or_else(|| panic!("what does the field `{field}` name?"));
    let pointer = format!("/{}", field.replace('.', "/"));
    let place = body.pointer_mut(&pointer);
    *place.unwrap_or_else(|| panic!("the body has no `{field}` yet")) = if name.ends_with('s') {
        json!([thing])
    } else {
        json!(thing)
    };
    body
}

/// The inference service as far as this goes: it looks the model up in the project in whose name it is asked.
async fn stand_in(
    State(store): State<Store>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response {
    let project: ProjectId = headers["x-attune-project"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let model = request["model"].as_str().unwrap();
    let mut tx = store.tenant_tx(project).await.unwrap();
    if models::resolve(&mut tx, model).await.unwrap().is_none() {
        let message = format!("There is no model `{model}` in this project.");
        let error = json!({"error": {"message": message, "code": "model_not_found"}});
        return (StatusCode::NOT_FOUND, Json(error)).into_response();
    }
    let message = json!({"role": "assistant", "content": "1"});
    Json(json!({
        "model": model,
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }))
    .into_response()
}

async fn start() -> TestApp {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = TestApp::start_with_inference(&url).await;
    let service = axum::Router::new()
        .route("/v1/chat/completions", post(stand_in))
        .with_state(app.database.store());
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    app
}

#[tokio::test]
async fn what_a_body_names_of_anothers_is_like_a_missing_thing() {
    let app = start().await;
    let (alices, bobs) = (Things::of_alice(&app).await, Things::of_bob(&app).await);
    let nobodys = Things::nobodys();
    for (path, fields) in naming_bodies() {
        let client: &Client = match path {
            "/v1/fine_tuning/checkpoints/{model}/permissions" => &app.bobs_admin,
            _ if path.starts_with("/v1/organization/") => &app.bobs_admin,
            _ => &app.bob,
        };
        for field in fields {
            let asked = |things| {
                let body = naming(body(path, &field, &bobs), &field, things);
                ask(client, &Method::POST, named(path, &bobs), Some(body))
            };
            let theirs = anonymous(&asked(&alices).await, &alices);
            let missing = anonymous(&asked(&nobodys).await, &nobodys);
            assert_eq!(theirs, missing, "`{field}` of {path}");
            // Otherwise the field was not looked at, and nothing was asked.
            let own = anonymous(&asked(&bobs).await, &bobs);
            assert_ne!(theirs, own, "`{field}` of {path}");
        }
    }
}

#[test]
fn the_document_says_what_bodies_name() {
    let found = naming_bodies();
    let of = |path: &str| found.iter().find(|(found, _)| *found == path);
    let (_, job) = of("/v1/fine_tuning/jobs").unwrap();
    let mut job = job.clone();
    job.sort();
    assert_eq!(job, JOB);
    for (path, field) in [
        ("/v1/batches", "input_file_id"),
        ("/v1/chat/completions", "model"),
        ("/v1/uploads/{id}/complete", "part_ids"),
        (
            "/v1/fine_tuning/checkpoints/{model}/permissions",
            "project_ids",
        ),
        ("/v1/organization/projects/{project_id}/users", "user_id"),
    ] {
        let (_, fields) = of(path).unwrap();
        assert_eq!(fields, &[field], "{path}");
    }
}

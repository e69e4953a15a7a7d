//! Chat completions against a stand-in for the inference service, which speaks the same HTTP.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::TestApp;

/// Answers by the name of the model; echoes what it was sent.
async fn stand_in(headers: HeaderMap, Json(request): Json<Value>) -> Response {
    match request["model"].as_str().unwrap() {
        "stream" => {
            let events = ["data: {\"a\":1}\n\n", "data: [DONE]\n\n"]
                .map(|event| Ok::<_, Infallible>(Bytes::from(event)));
            let body = Body::from_stream(futures::stream::iter(events));
            ([("content-type", "text/event-stream")], body).into_response()
        }
        "dying" => {
            let events = async_stream::stream! {
                yield Ok(Bytes::from("data: {\"a\":1}\n\ndata: {\"a\""));
                // It is on its way before the connection breaks.
                tokio::time::sleep(Duration::from_millis(100)).await;
                yield Err(std::io::Error::other("killed"));
            };
            let body = Body::from_stream(events);
            ([("content-type", "text/event-stream")], body).into_response()
        }
        "missing" => (
            StatusCode::NOT_FOUND,
            Json(json!({"error": {"code": "model_not_found"}})),
        )
            .into_response(),
        "broken" => (StatusCode::INTERNAL_SERVER_ERROR, "a secret").into_response(),
        "busy" => (StatusCode::SERVICE_UNAVAILABLE, "a secret").into_response(),
        "strict" => (StatusCode::UNAUTHORIZED, "a secret").into_response(),
        _ => {
            let header = |name: &str| {
                headers
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            let seen =
                json!({"key": header("authorization"), "project": header("x-attune-project")});
            Json(json!({"seen": seen, "request": request})).into_response()
        }
    }
}

async fn start() -> TestApp {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let service = axum::Router::new().route("/v1/chat/completions", post(stand_in));
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    TestApp::start_with_inference(&url).await
}

fn request(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "unknown": [1]})
}

#[tokio::test]
async fn a_request_is_passed_on_in_the_name_of_its_project() {
    let app = start().await;
    let answer = app
        .alice
        .post("/v1/chat/completions", &request("m"))
        .await
        .ok();
    assert_eq!(answer["request"], request("m"));
    assert_eq!(answer["seen"]["key"], "Bearer internal");
    assert_eq!(answer["seen"]["project"], app.alice_project.to_string());
}

#[tokio::test]
async fn a_stream_is_passed_through_untouched() {
    let app = start().await;
    let answer = app
        .alice
        .post("/v1/chat/completions", &request("stream"))
        .await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.text, "data: {\"a\":1}\n\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn a_stream_whose_service_dies_ends_with_an_error() {
    let app = start().await;
    let answer = app
        .alice
        .post("/v1/chat/completions", &request("dying"))
        .await;
    assert_eq!(answer.status, 200);
    let events: Vec<&str> = answer.text.split_terminator("\n\n").collect();
    let [first, last] = events[..] else {
        panic!("a whole event and an error: {}", answer.text);
    };
    assert_eq!(first, "data: {\"a\":1}");
    let error: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    let error = &error["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("service_unavailable_error"), &json!("unavailable"))
    );
    let id = answer.header("x-request-id");
    assert!(error["message"].as_str().unwrap().ends_with(id), "{error}");
}

#[tokio::test]
async fn errors_of_the_request_pass_and_errors_of_the_service_do_not() {
    let app = start().await;
    let missing = app
        .alice
        .post("/v1/chat/completions", &request("missing"))
        .await;
    assert_eq!(
        (missing.status, &missing.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    for (model, status) in [("broken", 500), ("busy", 503), ("strict", 500)] {
        let answer = app
            .alice
            .post("/v1/chat/completions", &request(model))
            .await;
        assert_eq!(answer.refusal().0, status, "{model}");
        assert!(!answer.text.contains("secret"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_service_that_is_away_is_a_503() {
    let app = TestApp::start().await;
    let refused = app.alice.post("/v1/chat/completions", &request("m")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
}

#[tokio::test]
async fn a_request_without_a_conversation_is_refused_here() {
    let app = TestApp::start().await;
    for (body, param) in [
        (json!({"messages": [{}]}), "model"),
        (json!({"model": "m"}), "messages"),
        (json!({"model": "m", "messages": []}), "messages"),
    ] {
        let refusal = app
            .alice
            .post("/v1/chat/completions", &body)
            .await
            .refusal();
        assert_eq!((refusal.0, refusal.1.as_deref()), (400, Some(param)));
    }
    let huge = app
        .alice
        .post_text("/v1/chat/completions", vec![b' '; (8 << 20) + 1])
        .await;
    assert_eq!(huge.refusal().0, 413);
}

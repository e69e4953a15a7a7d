//! Errors that have no handler, and the headers of every answer.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;

use crate::support::{Form, ROWS, TestApp, redacted};

#[tokio::test]
async fn what_no_route_takes_is_refused_in_the_error_body() {
    let app = TestApp::start().await;
    insta::assert_json_snapshot!(app.alice.get("/v1/engines").await.json(), @r#"
    {
      "error": {
        "code": "unknown_url",
        "message": "There is no route `GET /v1/engines`.",
        "param": null,
        "type": "invalid_request_error"
      }
    }
    "#);
    let put = app.alice.request(Method::PUT, "/v1/files");
    let refused = app.alice.send(put).await;
    assert_eq!(
        refused.refusal(),
        (405, None, Some("method_not_allowed".to_owned()))
    );
}

#[tokio::test]
async fn every_answer_carries_the_headers() {
    let app = TestApp::start().await;
    for path in ["/healthz", "/v1/files", "/nowhere"] {
        let answer = app.alice.get(path).await;
        assert!(answer.header("x-request-id").starts_with("req_"), "{path}");
        assert_eq!(answer.header("openai-version"), "2020-10-01");
        assert!(answer.header("openai-processing-ms").parse::<u64>().is_ok());
    }
}

#[tokio::test]
async fn a_wrong_key_is_a_401_and_an_admin_key_a_403() {
    let app = TestApp::start().await;
    let wrong = app.alice.with_key("sk-wrong");
    for client in [&app.anonymous, &wrong] {
        let refusal = client.get("/v1/models").await.refusal();
        assert_eq!(refusal, (401, None, Some("invalid_api_key".to_owned())));
    }
    let basic = app
        .anonymous
        .request(Method::GET, "/v1/models")
        .header(AUTHORIZATION, "Basic eDp5");
    assert_eq!(app.anonymous.send(basic).await.status, 401);
    let refusal = app.admin.get("/v1/models").await.refusal();
    assert_eq!(
        refusal,
        (403, None, Some("admin_key_not_allowed".to_owned()))
    );
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_the_body_is_looked_at() {
    let app = TestApp::start().await;
    let wrong = app.alice.with_key("sk-wrong");
    assert_eq!(
        wrong.post_text("/v1/fine_tuning/jobs", "{").await.status,
        401
    );
}

#[tokio::test]
async fn storage_that_is_away_is_a_503_with_a_time_to_come_back() {
    let mut app = TestApp::start().await;
    app.stop_storage().await;
    let refused = app.alice.upload(Form::of("fine-tune", ROWS)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    insta::assert_json_snapshot!(redacted(&refused.json()), @r#"
    {
      "error": {
        "code": "unavailable",
        "message": "A part of the service is not available right now; try again soon. If it lasts, tell your operator this request id: [request]",
        "param": null,
        "type": "service_unavailable_error"
      }
    }
    "#);
    assert!(refused.text.contains(refused.header("x-request-id")));
}

#[tokio::test]
async fn clients_telemetry_is_ignored() {
    let app = TestApp::start().await;
    let request = app
        .alice
        .request(Method::GET, "/v1/models")
        .header("x-stainless-retry-count", "1")
        .header("openai-organization", "org-x")
        .header("openai-project", "proj_x");
    assert_eq!(app.alice.send(request).await.status, 200);
}

#[tokio::test]
async fn whoever_is_let_in_is_told_whose_organization_answers() {
    let app = TestApp::start().await;
    let org = app.alice_org.to_string();
    for (client, path, status, expected) in [
        (&app.alice, "/v1/models", 200, org.as_str()),
        (&app.alice, "/v1/files/file-1", 404, &org),
        (&app.alice, "/v1/organization/projects", 403, ""),
        (&app.admin, "/v1/organization/projects", 200, &org),
        (&app.anonymous, "/v1/models", 401, ""),
        (&app.anonymous, "/healthz", 200, ""),
    ] {
        let answer = client.get(path).await;
        let found = (answer.status, answer.header("openai-organization"));
        assert_eq!(found, (status, expected), "{path}");
    }
    let bobs = app.bob.get("/v1/models").await;
    assert_ne!(bobs.header("openai-organization"), org);
}

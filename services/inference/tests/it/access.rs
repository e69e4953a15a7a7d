//! Who may ask, and what is there besides chat.

use sqlx::PgPool;

use crate::harness::{BASE, TOKEN, TestServer, greedy};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_call_without_the_internal_token_is_401(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let request = || {
        let project = server.owner.to_string();
        server
            .http
            .post(format!("{}/v1/chat/completions", server.url))
            .header(inference::PROJECT_HEADER, project)
            .body(greedy(BASE, 1).to_string())
    };
    for request in [
        request(),
        request().bearer_auth("wrong"),
        request().bearer_auth(""),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        let text = response.text().await.unwrap();
        assert!(text.contains("\"code\":\"invalid_api_key\""), "{text}");
    }
    let missing_project = server
        .http
        .post(format!("{}/v1/chat/completions", server.url))
        .bearer_auth(TOKEN)
        .body(greedy(BASE, 1).to_string());
    assert_eq!(missing_project.send().await.unwrap().status(), 400);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn operators_see_health_readiness_and_metrics(pool: PgPool) {
    let server = TestServer::start(pool).await;
    for (path, expected) in [
        ("healthz", "ok"),
        ("readyz", "ok"),
        ("metrics", "attune_inference_prompt_tokens_total"),
    ] {
        server.answer(&greedy(BASE, 1)).await;
        let response = server
            .http
            .get(format!("{}/{path}", server.url))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains(expected), "{path}: {text}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_unknown_route_and_method_answer_in_json(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let get = |path: &str| server.http.get(format!("{}/{path}", server.url)).send();
    for (path, status) in [("v1/nothing", 404), ("v1/chat/completions", 405)] {
        let response = get(path).await.unwrap();
        assert_eq!(response.status(), status);
        let text = response.text().await.unwrap();
        assert!(text.starts_with("{\"error\":{\"message\":"), "{text}");
    }
}

//! What probes and Prometheus read.

use crate::support::TestApp;

#[tokio::test]
async fn a_service_with_all_it_needs_is_ready() {
    let app = TestApp::start().await;
    assert_eq!(app.anonymous.get("/healthz").await.status, 200);
    let ready = app.anonymous.get("/readyz").await.ok();
    assert_eq!(
        ready,
        serde_json::json!({"status": "ready", "postgres": "ready", "storage": "ready"})
    );
}

#[tokio::test]
async fn a_service_without_storage_lives_but_is_not_ready() {
    let mut app = TestApp::start().await;
    app.stop_storage().await;
    assert_eq!(app.anonymous.get("/healthz").await.status, 200);
    let not_ready = app.anonymous.get("/readyz").await;
    assert_eq!(
        (not_ready.status, not_ready.header("retry-after")),
        (503, "5")
    );
    assert_eq!(not_ready.json()["storage"], "unavailable");
    assert_eq!(not_ready.json()["postgres"], "ready");
}

#[tokio::test]
async fn metrics_name_routes_and_no_tenant() {
    let app = TestApp::start().await;
    let id = app.alice.training_file().await;
    app.alice.get(&format!("/v1/files/{id}")).await.ok();
    let metrics = app.anonymous.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let wanted = r#"attune_http_requests_total{method="GET",route="/v1/files/{id}",status="200"}"#;
    assert!(metrics.text.contains(wanted), "{}", metrics.text);
    assert!(
        metrics
            .text
            .contains("attune_http_request_duration_seconds_bucket"),
        "{}",
        metrics.text
    );
    assert!(!metrics.text.contains(&id) && !metrics.text.contains("proj_"));
}

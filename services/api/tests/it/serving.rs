//! The whole service from its settings, as its process runs it.

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::support::{Client, TestApp};

#[tokio::test]
async fn the_service_answers_sweeps_and_stops_when_told() {
    let app = TestApp::start().await;
    let job = app.alice.job(serde_json::json!({})).await;
    let adapter = app.finish_next_job().await.model_name;
    app.alice
        .delete(&format!("/v1/models/{adapter}"))
        .await
        .ok();

    let config = app.config();
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(api::serve(config, listener, async {
        let _ = stopped.await;
    }));
    let client = Client::new(&url, Some(app.alice.key()));
    let path = format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(client.get(&path).await.ok()["status"], "succeeded");
    // Its first look comes at once; it ends when the object is gone.
    while app
        .object_keys()
        .await
        .iter()
        .any(|key| key.contains("/models/"))
    {
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    service.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_service_starts_before_what_it_needs() {
    let app = TestApp::start().await;
    let mut config = app.config();
    config.database_url = "postgres://attune_api@localhost/none?host=/nowhere".to_owned();
    config.sweep_database_url = None;
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), None);
    let service = tokio::spawn(api::serve(config, listener, std::future::pending()));
    assert_eq!(client.get("/healthz").await.status, 200);
    assert_eq!(client.get("/readyz").await.status, 503);
    service.abort();
}

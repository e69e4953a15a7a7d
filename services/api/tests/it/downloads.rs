//! Own models, to be run elsewhere.

use std::process::Command;

use axum::Json;
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::TestApp;

/// A model whose adapter has both files; the name, and the prefix of its objects.
async fn tuned(app: &TestApp) -> (String, String) {
    app.alice.job(json!({})).await;
    let name = app.finish_next_job().await.model_name;
    let keys = app.object_keys().await;
    let weights = keys.iter().find(|key| key.contains("/models/")).unwrap();
    let prefix = weights.strip_suffix("adapter_model.safetensors").unwrap();
    app.put(&format!("{prefix}adapter_config.json")).await;
    (name, prefix.to_owned())
}

#[tokio::test]
async fn an_adapter_is_a_zip_archive_of_its_files() {
    let app = TestApp::start().await;
    let (name, _) = tuned(&app).await;
    let request = app
        .alice
        .request(reqwest::Method::GET, &format!("/v1/models/{name}/download"));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/zip");
    let file = response.headers()["content-disposition"].to_str().unwrap();
    assert!(
        file.starts_with("attachment; filename=\"ft-tiny-acme--"),
        "{file}"
    );
    let length = response.content_length().unwrap();
    let bytes = response.bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, length);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.zip");
    std::fs::write(&path, bytes).unwrap();
    let script = "import sys, zipfile\n\
                  z = zipfile.ZipFile(sys.argv[1])\n\
                  assert z.testzip() is None\n\
                  print(z.namelist(), z.read('adapter_config.json'))";
    let read = Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&read.stdout).trim(),
        "['README.md', 'adapter_config.json', 'adapter_model.safetensors'] b'data'"
    );
}

#[tokio::test]
async fn what_cannot_be_downloaded_is_refused_with_the_way_out() {
    let app = TestApp::start().await;
    let (name, prefix) = tuned(&app).await;
    let refusal = async |path: String| {
        let (status, _, code) = app.alice.get(&format!("/v1/models/{path}")).await.refusal();
        (status, code.unwrap_or_default())
    };
    let expected = |status, code: &str| (status, code.to_owned());
    assert_eq!(
        refusal("tiny/download".to_owned()).await,
        expected(400, "not_fine_tuned")
    );
    assert_eq!(
        refusal(format!("{name}/download?format=onnx")).await,
        expected(400, "invalid_value")
    );
    // All of its weights were trained.
    app.put(&format!("{prefix}weights.safetensors")).await;
    app.objects
        .delete(&format!("{prefix}adapter_config.json"))
        .await
        .unwrap();
    assert_eq!(
        refusal(format!("{name}/download")).await,
        expected(400, "no_adapter")
    );
    assert_eq!(
        refusal(format!("{name}/download?format=gguf")).await,
        expected(503, "unavailable")
    );
}

/// Stands where the inference service does and says what it was asked.
async fn exporter() -> String {
    let answer = |headers: HeaderMap, Json(asked): Json<Value>| async move {
        let project = headers["x-attune-project"].to_str().unwrap().to_owned();
        Json(json!({"asked": asked, "project": project}))
    };
    let router = Router::new().route("/internal/export", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test]
async fn a_merged_model_is_asked_for_in_the_projects_name() {
    let app = TestApp::start_with_inference(&exporter().await).await;
    let (name, _) = tuned(&app).await;
    let answer = app
        .alice
        .get(&format!("/v1/models/{name}/download?format=merged"))
        .await;
    let expected = json!({
        "asked": {"model": name, "format": "merged"},
        "project": app.alice_project.to_string(),
    });
    assert_eq!(answer.ok(), expected);
    assert_eq!(
        answer.header("content-length"),
        answer.text.len().to_string()
    );
    assert!(
        answer
            .header("content-disposition")
            .ends_with("-merged.zip\"")
    );
}

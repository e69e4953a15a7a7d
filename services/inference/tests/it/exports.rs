//! Fine-tuned models as files that other programs load.

use std::process::Command;

use inference::PROJECT_HEADER;
use lm::BaseFiles;
use reqwest::Response;
use serde_json::json;
use sqlx::PgPool;

use crate::harness::{BASE, TOKEN, TestServer};

async fn export(server: &TestServer, model: &str, format: &str) -> Response {
    server
        .http
        .post(format!("{}/internal/export", server.url))
        .bearer_auth(TOKEN)
        .header(PROJECT_HEADER, server.owner.to_string())
        .header("content-type", "application/json")
        .body(json!({"model": model, "format": format}).to_string())
        .send()
        .await
        .unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_merged_model_opens_as_a_base_model(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let response = export(&server, &server.tuned, "merged").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/zip");
    let length = response.content_length().unwrap();
    let bytes = response.bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, length);

    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("model.zip");
    std::fs::write(&archive, &bytes).unwrap();
    let out = folder.path().join("model");
    let unpacked = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .args([&archive, &out])
        .status()
        .unwrap();
    assert!(unpacked.success());
    assert!(BaseFiles::open(&out).unwrap().dtype().is_ok());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_gguf_file_opens_as_a_base_model(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let response = export(&server, &server.tuned, "gguf").await;
    assert_eq!(response.status(), 200);
    let bytes = response.bytes().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, &bytes).unwrap();
    assert!(BaseFiles::open(&path).unwrap().dtype().is_ok());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn only_the_projects_own_models_are_exported(pool: PgPool) {
    let server = TestServer::start(pool).await;
    assert_eq!(export(&server, BASE, "gguf").await.status(), 400);
    assert_eq!(export(&server, "ft:none", "gguf").await.status(), 404);
    assert_eq!(export(&server, &server.tuned, "zip").await.status(), 400);
    let strangers = server
        .http
        .post(format!("{}/internal/export", server.url))
        .bearer_auth(TOKEN)
        .header(PROJECT_HEADER, server.stranger.to_string())
        .header("content-type", "application/json")
        .body(json!({"model": server.tuned, "format": "gguf"}).to_string());
    assert_eq!(strangers.send().await.unwrap().status(), 404);
}

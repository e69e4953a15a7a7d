//! Base models that come from elsewhere.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use artifacts::{ObjectStore, S3Config};
use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::Installation;

use crate::tiny_base;

#[tokio::test]
async fn a_base_model_is_imported_from_a_bucket() {
    let installation = Installation::start_apart().await;
    let exported = |name| installation.exported("storage.env", name);
    let bucket = S3Config {
        endpoint: exported("ATTUNE_S3_ENDPOINT"),
        region: exported("ATTUNE_S3_REGION"),
        bucket: "models-of-the-company".to_owned(),
        prefix: String::new(),
        path_style: true,
        access_key_id: exported("ATTUNE_S3_ACCESS_KEY_ID"),
        secret_access_key: exported("ATTUNE_S3_SECRET_ACCESS_KEY"),
    };
    let objects = ObjectStore::connect(&bucket);
    objects.ensure_bucket().await.unwrap();
    let base = tiny_base();
    for entry in std::fs::read_dir(base.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let key = format!("team/tiny/{name}");
        objects.put_file(&key, &path).await.unwrap();
    }
    objects
        .put_bytes("team/tiny/README.md", b"not wanted")
        .await
        .unwrap();

    installation.import_from(
        "s3://models-of-the-company/team/tiny",
        "from-a-bucket",
        &[
            ("AWS_ENDPOINT_URL", &bucket.endpoint),
            ("AWS_REGION", &bucket.region),
            ("AWS_ACCESS_KEY_ID", &bucket.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &bucket.secret_access_key),
        ],
    );

    answers(&installation, "from-a-bucket").await;
}

#[tokio::test]
async fn a_base_model_is_imported_from_a_hub() {
    let installation = Installation::start().await;
    let (base, cache) = (tiny_base(), TempDir::new().unwrap());
    fs::create_dir(base.path().join("onnx")).unwrap();
    fs::write(base.path().join("onnx/model.safetensors"), "another format").unwrap();
    let address = hub(base.path().to_owned()).await;

    // The command waits for the hub, which runs on this thread's runtime.
    let installation = tokio::task::spawn_blocking(move || {
        let home = cache.path().to_str().unwrap();
        let variables = [("HF_ENDPOINT", address.as_str()), ("HF_HOME", home)];
        installation.import_from("company/tiny", "from-a-hub", &variables);
        installation
    });
    answers(&installation.await.unwrap(), "from-a-hub").await;
}

async fn answers(installation: &Installation, model: &str) {
    let chat = json!({
        "model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "is 3 odd?"}],
    });
    let answer = installation
        .call(Method::POST, "/chat/completions", Some(chat))
        .await;
    assert_eq!(answer["model"], model);
    // The model may end its answer at once: its weights are random.
    let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((1..=2).contains(&tokens), "{answer}");
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Serves the folder as the repository `company/tiny`, in the protocol of the Hugging Face hub.
async fn hub(folder: PathBuf) -> String {
    let files = format!("/company/tiny/resolve/{COMMIT}/{{*name}}");
    let router = Router::new()
        .route("/api/models/company/tiny/revision/main", get(revision))
        .route(
            &format!("/api/models/company/tiny/tree/{COMMIT}"),
            get(tree),
        )
        .route(&files, get(file))
        .with_state(Arc::new(folder));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn revision() -> Json<Value> {
    Json(json!({"id": "company/tiny", "sha": COMMIT, "siblings": []}))
}

async fn tree(State(folder): State<Arc<PathBuf>>) -> Json<Value> {
    let names = fs::read_dir(&*folder).unwrap().map(|entry| entry.unwrap());
    let entry = |name: String| json!({"type": "file", "path": name, "size": 1, "oid": "0"});
    let files = names.filter(|file| file.path().is_file());
    let files = files.map(|file| entry(file.file_name().into_string().unwrap()));
    let more = ["README.md", "onnx/model.safetensors"].map(|name| entry(name.to_owned()));
    Json(files.chain(more).collect())
}

async fn file(State(folder): State<Arc<PathBuf>>, Path(name): Path<String>) -> Response {
    match fs::read(folder.join(&name)) {
        Ok(bytes) => {
            let etag = format!("\"{}\"", name.replace('/', "-"));
            let headers = [("etag", etag), ("x-repo-commit", COMMIT.to_owned())];
            (headers, bytes).into_response()
        }
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

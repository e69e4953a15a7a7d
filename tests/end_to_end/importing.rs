//! Base models that come from elsewhere.

use artifacts::{ObjectStore, S3Config};
use reqwest::Method;
use serde_json::json;
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

    let chat = json!({
        "model": "from-a-bucket", "max_tokens": 2, "messages": [{"role": "user", "content": "is 3 odd?"}],
    });
    let answer = installation
        .call(Method::POST, "/chat/completions", Some(chat))
        .await;
    assert_eq!(answer["model"], "from-a-bucket");
    assert_eq!(answer["usage"]["completion_tokens"], 2, "{answer}");
}

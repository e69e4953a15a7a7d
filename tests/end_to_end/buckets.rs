//! A project whose objects are in a bucket of its own, from the operator's command to its last object.

use std::fs;
use std::net::SocketAddr;

use artifacts::embedded::{self, Credentials, EmbeddedS3};
use artifacts::{ObjectStore, S3Config};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::Installation;

use crate::{create_job_with, installation_with_a_tiny_base, rows, says};

const BUCKET: &str = "acme-models";
const AWAY: &str = "the project's own bucket `acme-models` could not be reached";

/// Another S3 server, in this process.
struct OtherServer {
    folder: TempDir,
    addr: SocketAddr,
    server: Option<EmbeddedS3>,
}

impl OtherServer {
    async fn start(secret: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let mut other = Self {
            folder,
            addr: "127.0.0.1:0".parse().unwrap(),
            server: None,
        };
        other.serve(secret).await;
        other.objects(secret).ensure_bucket().await.unwrap();
        other
    }

    /// With what was in it, under another secret.
    async fn serve(&mut self, secret: &str) {
        let credentials = Credentials {
            access_key_id: "ACME".to_owned(),
            secret_access_key: secret.to_owned(),
        };
        let server = embedded::serve(self.folder.path(), self.addr, &credentials).await;
        let server = server.unwrap();
        self.addr = server.addr();
        self.server = Some(server);
    }

    async fn stop(&mut self) {
        self.server.take().unwrap().shutdown().await;
    }

    fn objects(&self, secret: &str) -> ObjectStore {
        ObjectStore::connect(&S3Config {
            endpoint: format!("http://{}", self.addr),
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            prefix: "ours/".to_owned(),
            path_style: true,
            access_key_id: "ACME".to_owned(),
            secret_access_key: secret.to_owned(),
        })
    }

    async fn keys(&self, secret: &str) -> Vec<String> {
        let listed = self.objects(secret).list("").await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    /// The operator's command, with this secret.
    fn give(&self, installation: &Installation, secret: &str) -> Result<String, String> {
        let file = self.folder.path().join("secret");
        fs::write(&file, secret).unwrap();
        installation.admin(&[
            "project",
            "bucket",
            "set",
            "default",
            "--endpoint",
            &format!("http://{}", self.addr),
            "--region",
            "us-east-1",
            "--bucket",
            BUCKET,
            "--prefix",
            "ours",
            "--access-key-id",
            "ACME",
            "--secret-key-file",
            file.to_str().unwrap(),
            "--path-style",
        ])
    }
}

fn shown(installation: &Installation) -> Value {
    let text = installation.admin(&["project", "bucket", "show", "default"]);
    let shown: Value = serde_json::from_str(&text.unwrap()).unwrap();
    shown["bucket"].clone()
}

/// The status and the error's code.
async fn chat(installation: &Installation, model: &str) -> (u16, Value) {
    let body = json!({
        "model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "is 3 odd?"}],
    });
    let answer = installation.send(Method::POST, "/chat/completions", Some(body));
    told(answer.await).await
}

/// The status and the error's code.
async fn told(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, body["error"]["code"].clone())
}

fn settings() -> Value {
    json!({"n_epochs": 2, "batch_size": 4, "checkpoint_every": 4, "learning_rate": 5e-3, "lora": {"rank": 4}})
}

/// Deletes every file and every model of the project.
async fn delete_everything(installation: &Installation) {
    for (list, prefix) in [("/files", "file-"), ("/models", "ft:")] {
        let listed = installation.call(Method::GET, list, None).await;
        for each in listed["data"].as_array().unwrap() {
            let id = each["id"].as_str().unwrap();
            if id.starts_with(prefix) {
                let path = format!("{list}/{id}");
                installation.call(Method::DELETE, &path, None).await;
            }
        }
    }
}

// Commands wait for the server in this process, so it has threads of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn all_of_a_project_is_in_its_own_bucket_until_it_is_deleted() {
    let installation = installation_with_a_tiny_base().await;
    let mut other = OtherServer::start("first-secret").await;

    let refused = other.give(&installation, "a-wrong-secret").unwrap_err();
    assert!(refused.contains("cannot be used"), "{refused}");
    assert!(refused.contains("SignatureDoesNotMatch"), "{refused}");
    assert!(!refused.contains("a-wrong-secret"), "{refused}");
    assert_eq!(shown(&installation), Value::Null);
    other.give(&installation, "first-secret").unwrap();
    assert_eq!(shown(&installation)["prefix"], "ours/");
    assert_eq!(other.keys("first-secret").await, Vec::<String>::new());

    let file = installation.upload(&rows(16)).await;
    let job = create_job_with(&installation, &file, settings()).await;
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let tuned = ended["fine_tuned_model"].as_str().unwrap();
    assert_eq!(chat(&installation, tuned).await, (200, Value::Null));
    for format in ["peft", "merged", "gguf"] {
        let path = format!("/models/{tuned}/download?format={format}");
        let archive = installation.send(Method::GET, &path, None).await;
        assert_eq!(archive.status(), 200, "{format}");
        assert!(archive.bytes().await.unwrap().len() > 1_000, "{format}");
    }
    let result = ended["result_files"][0].as_str().unwrap();
    let path = format!("/files/{result}/content");
    let csv = installation.send(Method::GET, &path, None).await;
    assert!(csv.text().await.unwrap().starts_with("step,train_loss"));

    let keys = other.keys("first-secret").await;
    for kind in ["/files/", "/jobs/", "/models/", "adapter_model.safetensors"] {
        assert!(
            keys.iter().any(|key| key.contains(kind)),
            "{kind}: {keys:?}"
        );
    }
    assert_eq!(installation.projects_in_bucket(), Vec::<String>::new());
    let refused = installation.admin(&["project", "bucket", "remove", "default"]);
    let refused = refused.unwrap_err();
    assert!(refused.contains("2 files"), "{refused}");

    other.stop().await;
    other.serve("second-secret").await;
    let path = format!("/files/{file}/content");
    let denied = installation.send(Method::GET, &path, None).await;
    let refused = (503, json!("bucket_refused"));
    assert_eq!(told(denied).await, refused);
    // Not in memory yet, while the model itself is.
    let checkpoint = format!("{tuned}:ckpt-step-4");
    assert_eq!(chat(&installation, &checkpoint).await, refused);
    assert_eq!(chat(&installation, tuned).await, (200, Value::Null));
    other.give(&installation, "second-secret").unwrap();
    let content = installation.send(Method::GET, &path, None).await;
    assert_eq!(content.text().await.unwrap(), rows(16));
    assert_eq!(chat(&installation, &checkpoint).await, (200, Value::Null));

    delete_everything(&installation).await;
    installation
        .wait_for("the sweep", async |_| {
            other.keys("second-secret").await.is_empty().then_some(())
        })
        .await;
    assert_eq!(installation.projects_in_bucket(), Vec::<String>::new());
    let removed = ["project", "bucket", "remove", "default"];
    installation
        .wait_for("the sweep's rows", async |this| this.admin(&removed).ok())
        .await;
    assert_eq!(shown(&installation), Value::Null);

    let log = installation.admin(&["audit", "export"]).unwrap();
    assert_eq!(log.matches("project_bucket.updated").count(), 2, "{log}");
    assert_eq!(log.matches("project_bucket.deleted").count(), 1, "{log}");
    assert!(!log.contains("-secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_job_waits_for_the_bucket_of_its_project() {
    let installation = installation_with_a_tiny_base().await;
    let mut other = OtherServer::start("a-secret").await;
    other.give(&installation, "a-secret").unwrap();
    let file = installation.upload(&rows(16)).await;
    other.stop().await;
    let job = create_job_with(&installation, &file, settings()).await;
    installation
        .wait_for("the event", async |this| {
            says(&this.events(&job).await, AWAY).then_some(())
        })
        .await;
    other.serve("a-secret").await;
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(installation.projects_in_bucket(), Vec::<String>::new());
}

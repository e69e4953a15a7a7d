//! A running service, two tenants, one base model and one adapter.

mod seed;

use std::net::Ipv4Addr;

use artifacts::ObjectStore;
use artifacts::embedded::{self, Credentials, EmbeddedS3};
use domain::ProjectId;
use inference::{Config, Limits, PROJECT_HEADER};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};
use store::Store;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub(crate) const BASE: &str = "tiny";
pub(crate) const TOKEN: &str = "the-internal-token";

/// Everything a test needs. Dropping it stops the service.
pub(crate) struct TestServer {
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) store: Store,
    /// Owns the fine-tuned model.
    pub(crate) owner: ProjectId,
    pub(crate) stranger: ProjectId,
    /// The owner's fine-tuned model.
    pub(crate) tuned: String,
    _stop: oneshot::Sender<()>,
    _s3: EmbeddedS3,
    _dir: TempDir,
}

impl TestServer {
    pub(crate) async fn start(pool: PgPool) -> Self {
        Self::start_with(pool, Limits::default()).await
    }

    pub(crate) async fn start_with(pool: PgPool, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials {
            access_key_id: "id".to_owned(),
            secret_access_key: "secret".to_owned(),
        };
        let addr = (Ipv4Addr::LOCALHOST, 0).into();
        let s3 = embedded::serve(&dir.path().join("s3"), addr, &credentials)
            .await
            .unwrap();
        let s3_config = s3.config("attune");
        let objects = ObjectStore::connect(&s3_config);
        objects.ensure_bucket().await.unwrap();

        // The service logs in as itself: what its role may not see, its tests do not see either.
        let database = pool
            .connect_options()
            .as_ref()
            .clone()
            .username(store::migrate::INFERENCE_LOGIN);
        let store = Store::from_pool(pool);
        let seeded = seed::run(&store, &objects, dir.path()).await;
        let config = Config {
            database_url: database.to_url_lossy().to_string(),
            s3: s3_config,
            keyring: None,
            internal_token: TOKEN.to_owned(),
            cache_dir: dir.path().join("cache"),
            device: "cpu".to_owned(),
            limits,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            inference::serve(config, listener, shutdown).await.unwrap();
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let seed::Seeded {
            owner,
            stranger,
            tuned,
        } = seeded;
        Self {
            url,
            http,
            store,
            owner,
            stranger,
            tuned,
            _stop: stop,
            _s3: s3,
            _dir: dir,
        }
    }

    /// A chat request of the owner's, ready to send.
    pub(crate) fn ask(&self, body: &Value) -> reqwest::RequestBuilder {
        self.ask_for(self.owner, body)
    }

    pub(crate) fn ask_for(&self, project_id: ProjectId, body: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}/v1/chat/completions", self.url))
            .bearer_auth(TOKEN)
            .header(PROJECT_HEADER, project_id.to_string())
            .body(body.to_string())
    }

    /// The answer to a request that must succeed.
    pub(crate) async fn answer(&self, body: &Value) -> Value {
        let response = self.ask(body).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The chunks of a stream that must succeed, the final `[DONE]` checked and left out.
    pub(crate) async fn chunks(&self, body: &Value) -> Vec<Value> {
        let response = self.ask(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = response.text().await.unwrap();
        let mut data: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{text}");
        data.into_iter()
            .map(|chunk| serde_json::from_str(chunk).unwrap())
            .collect()
    }

    /// The status and the error of a request that must fail.
    pub(crate) async fn refusal(&self, project_id: ProjectId, body: &Value) -> (u16, Value) {
        let response = self.ask_for(project_id, body).send().await.unwrap();
        let status = response.status().as_u16();
        assert!(response.headers().contains_key("x-request-id"));
        let mut body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        (status, body["error"].take())
    }

    /// The value of a metric now.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = self
            .http
            .get(format!("{}/metrics", self.url))
            .send()
            .await
            .unwrap();
        let metrics = metrics.text().await.unwrap();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// Asks for the metric until it has this value.
    pub(crate) async fn until(&self, name: &str, value: f64) {
        while (self.metric(name).await - value).abs() > f64::EPSILON {
            tokio::task::yield_now().await;
        }
    }
}

/// A greedy request for `max_tokens` tokens: no end of turn, so that its length is known.
pub(crate) fn greedy(model: &str, max_tokens: usize) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "What is the answer?"}],
        "temperature": 0,
        "max_tokens": max_tokens,
        "logit_bias": {"0": -100, "1": -100, "2": -100},
    })
}

/// The request with these fields changed.
pub(crate) fn with(mut request: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        panic!("{fields} is no object")
    };
    for (name, value) in fields {
        request[name] = value;
    }
    request
}

/// The text of the first choice.
pub(crate) fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

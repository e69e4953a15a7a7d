//! A server of Weights & Biases as far as its own client's two requests go, which keeps what it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Whose the key is, and so whose runs are that name no entity.
pub(super) const OWNER: &str = "ada";

/// A run as the server knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    /// The variables it was made with.
    pub(super) made: Value,
    /// How often it was made.
    pub(super) n_made: usize,
    /// Its history.
    pub(super) history: Vec<Value>,
    /// Where each request began to write into it.
    pub(super) offsets: Vec<usize>,
    pub(super) summary: Value,
    pub(super) exit_code: Option<i64>,
    /// Requests that told nothing but that it is alive.
    pub(super) n_heartbeats: usize,
}

/// Listens until it is dropped.
pub(super) struct Recorder {
    pub(super) url: String,
    kept: Arc<Kept>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    runs: Mutex<BTreeMap<String, Run>>,
    /// Everything that came, headers included, as one text: what must not be in it is looked for there.
    received: Mutex<String>,
    n_requests: Mutex<usize>,
    refusals: Mutex<Vec<u16>>,
    /// What a request must carry; any if there is none.
    authorization: Mutex<Option<String>>,
    /// The request whose answer never comes.
    hangs: Mutex<Option<&'static str>>,
    came: Notify,
    hung: Notify,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::new(Kept::default());
        let service = Router::new()
            .route("/graphql", post(graphql))
            .route(
                "/files/{entity}/{project}/{run}/file_stream",
                post(file_stream),
            )
            .with_state(kept.clone());
        let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { url, kept, server }
    }

    /// The next requests are refused with these statuses.
    pub(super) fn refuse_with<const N: usize>(&self, statuses: [u16; N]) {
        let mut refusals = self.kept.refusals.lock().unwrap();
        *refusals = statuses.into_iter().rev().collect();
    }

    /// From now on nothing but this key opens it.
    pub(super) fn accept_only(&self, key: &str) {
        use base64::Engine as _;
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("api:{key}"));
        *self.kept.authorization.lock().unwrap() = Some(format!("Basic {credentials}"));
    }

    /// The next request to `endpoint` is carried out, and its answer never comes.
    pub(super) fn hang_at(&self, endpoint: &'static str) {
        *self.kept.hangs.lock().unwrap() = Some(endpoint);
    }

    /// Waits until a request has come.
    pub(super) async fn next(&self) {
        Self::soon(&self.kept.came).await;
    }

    /// Waits until a request has come to where it hangs.
    pub(super) async fn hung(&self) {
        Self::soon(&self.kept.hung).await;
    }

    async fn soon(notify: &Notify) {
        tokio::time::timeout(Duration::from_secs(20), notify.notified())
            .await
            .expect("a request comes");
    }

    /// The run at `ENTITY/PROJECT/NAME`.
    #[track_caller]
    pub(super) fn run(&self, path: &str) -> Run {
        let runs = self.kept.runs.lock().unwrap();
        let known: Vec<&String> = runs.keys().collect();
        let run = runs.get(path).cloned();
        run.unwrap_or_else(|| panic!("no run `{path}` among {known:?}"))
    }

    pub(super) fn n_runs(&self) -> usize {
        self.kept.runs.lock().unwrap().len()
    }

    pub(super) fn n_requests(&self) -> usize {
        *self.kept.n_requests.lock().unwrap()
    }

    pub(super) fn received(&self) -> String {
        self.kept.received.lock().unwrap().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Kept {
    /// Keeps the request. What it gives is the refusal.
    fn refuses(&self, headers: &HeaderMap, body: &Value) -> Option<Response> {
        *self.n_requests.lock().unwrap() += 1;
        let text = format!("{headers:?} {body}\n");
        self.received.lock().unwrap().push_str(&text);
        let given = headers
            .get("authorization")
            .map(|value| value.to_str().unwrap());
        let refusal = self.refusals.lock().unwrap().pop();
        let wanted = self.authorization.lock().unwrap().clone();
        let status = match (refusal, wanted) {
            (Some(status), _) => status,
            (None, Some(wanted)) if given != Some(wanted.as_str()) => 401,
            _ => return None,
        };
        self.came.notify_one();
        let status = StatusCode::from_u16(status).unwrap();
        // As a careless proxy would, it shows what it was sent.
        Some((status, [("location", "/elsewhere")], text).into_response())
    }

    async fn answer(&self, endpoint: &'static str, body: Value) -> Response {
        let hangs = self.hangs.lock().unwrap().take_if(|at| *at == endpoint);
        self.came.notify_one();
        if hangs.is_some() {
            self.hung.notify_one();
            std::future::pending::<()>().await;
        }
        Json(body).into_response()
    }
}

async fn graphql(
    State(kept): State<Arc<Kept>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if let Some(refusal) = kept.refuses(&headers, &body) {
        return refusal;
    }
    assert!(body["query"].as_str().unwrap().contains("upsertBucket"));
    let made = &body["variables"];
    let entity = made["entity"].as_str().unwrap_or(OWNER);
    let (project, name) = (
        made["project"].as_str().unwrap(),
        made["name"].as_str().unwrap(),
    );
    {
        let mut runs = kept.runs.lock().unwrap();
        let run = runs
            .entry(format!("{entity}/{project}/{name}"))
            .or_default();
        run.made = made.clone();
        run.n_made += 1;
    }
    let answer = json!({"data": {"upsertBucket": {"bucket": {
        "id": "UnVuOjE=", "name": name, "project": {"name": project, "entity": {"name": entity}},
    }, "inserted": true}}});
    kept.answer("graphql", answer).await
}

async fn file_stream(
    State(kept): State<Arc<Kept>>,
    Path((entity, project, name)): Path<(String, String, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if let Some(refusal) = kept.refuses(&headers, &body) {
        return refusal;
    }
    {
        let mut runs = kept.runs.lock().unwrap();
        let Some(run) = runs.get_mut(&format!("{entity}/{project}/{name}")) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        add(run, &body);
    }
    kept.answer("file_stream", json!({"exitcode": null, "limits": {}}))
        .await
}

/// Writes lines where they belong, over what is there.
fn add(run: &mut Run, body: &Value) {
    if body == &json!({}) {
        run.n_heartbeats += 1;
    }
    let lines = |file: &str| -> Vec<Value> {
        let content = body["files"][file]["content"].as_array();
        let lines = content.into_iter().flatten();
        lines
            .map(|line| serde_json::from_str(line.as_str().unwrap()).unwrap())
            .collect()
    };
    let history = &body["files"]["wandb-history.jsonl"];
    if let Some(offset) = history["offset"].as_u64() {
        let offset = usize::try_from(offset).unwrap();
        assert!(
            offset <= run.history.len(),
            "lines are missing before {offset}"
        );
        run.offsets.push(offset);
        run.history.truncate(offset);
        run.history.extend(lines("wandb-history.jsonl"));
    }
    if let Some(summary) = lines("wandb-summary.json").pop() {
        run.summary = summary;
    }
    if body["complete"] == json!(true) {
        run.exit_code = body["exitcode"].as_i64();
    }
}

//! A stand-in for the inference service: it answers by the name of the model.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// It runs as long as the test.
pub(crate) struct StandIn {
    pub(super) url: String,
    seen: Arc<Seen>,
}

/// What it was asked.
struct Seen {
    n_asked: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
    n_busy: AtomicUsize,
    n_limited: AtomicUsize,
    projects: Mutex<BTreeSet<String>>,
    /// Closed until the test lets go.
    held: Semaphore,
}

impl StandIn {
    pub(super) async fn start() -> Self {
        let seen = Arc::new(Seen {
            n_asked: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            n_busy: AtomicUsize::new(0),
            n_limited: AtomicUsize::new(0),
            projects: Mutex::default(),
            held: Semaphore::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = axum::Router::new()
            .route("/v1/chat/completions", post(complete))
            .with_state(seen.clone());
        tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { url, seen }
    }

    pub(super) fn n_asked(&self) -> usize {
        self.seen.n_asked.load(Ordering::SeqCst)
    }

    /// Requests that were under way at one time.
    pub(super) fn most_at_once(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }

    pub(super) fn projects(&self) -> Vec<String> {
        self.seen.projects.lock().unwrap().iter().cloned().collect()
    }

    /// Answers what was held up, and what will be.
    pub(super) fn let_go(&self) {
        self.seen.held.add_permits(1000);
    }
}

async fn complete(
    State(seen): State<Arc<Seen>>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response {
    seen.n_asked.fetch_add(1, Ordering::SeqCst);
    let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most.fetch_max(now, Ordering::SeqCst);
    let project = headers["x-attune-project"].to_str().unwrap().to_owned();
    seen.projects.lock().unwrap().insert(project);
    let answer = answer(&seen, &request).await;
    seen.now.fetch_sub(1, Ordering::SeqCst);
    answer
}

async fn answer(seen: &Seen, request: &Value) -> Response {
    let model = request["model"].as_str().unwrap();
    match model {
        "held" => seen.held.acquire().await.unwrap().forget(),
        "missing" => {
            let body = json!({"error": {"code": "model_not_found"}});
            return (StatusCode::NOT_FOUND, Json(body)).into_response();
        }
        "broken" => return (StatusCode::INTERNAL_SERVER_ERROR, "a secret").into_response(),
        "away" => return (StatusCode::SERVICE_UNAVAILABLE, "a secret").into_response(),
        // Each lets the third try through.
        "busy" if seen.n_busy.fetch_add(1, Ordering::SeqCst) < 2 => {
            return (StatusCode::SERVICE_UNAVAILABLE, "a secret").into_response();
        }
        "limited" if seen.n_limited.fetch_add(1, Ordering::SeqCst) < 2 => {
            let headers = [("retry-after", "0")];
            return (StatusCode::TOO_MANY_REQUESTS, headers, "a secret").into_response();
        }
        _ => {}
    }
    Json(json!({
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }))
    .into_response()
}

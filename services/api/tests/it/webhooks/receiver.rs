//! Somebody's service that takes webhooks, as our tenants would write it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// Listens until it is dropped.
pub(super) struct Receiver {
    pub(super) url: String,
    seen: Arc<Seen>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    answers: Mutex<Vec<u16>>,
    came: Notify,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let service = Router::new().fallback(receive).with_state(seen.clone());
        let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { url, seen, server }
    }

    /// The next answers, after which all are 200.
    pub(super) fn answer_with<const N: usize>(&self, statuses: [u16; N]) {
        let mut answers = self.seen.answers.lock().unwrap();
        *answers = statuses.into_iter().rev().collect();
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Waits until a request has come.
    pub(super) async fn next(&self) {
        let wait = self.seen.came.notified();
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("a request comes");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(seen): State<Arc<Seen>>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let request = Request {
        path: uri.path().to_owned(),
        headers,
        body,
    };
    seen.requests.lock().unwrap().push(request);
    seen.came.notify_one();
    let status = seen.answers.lock().unwrap().pop().unwrap_or(200);
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("location", "/elsewhere")]).into_response()
}

/// Whether a request carries exactly the signatures of these secrets, computed by another implementation of HMAC than the
/// service's.
pub(super) fn is_signed_with(request: &Request, secrets: &[&str]) -> bool {
    let signed = format!(
        "{}.{}.{}",
        request.header("webhook-id"),
        request.header("webhook-timestamp"),
        request.body
    );
    let signatures = secrets.iter().map(|secret| {
        let key = STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    });
    request.header("webhook-signature") == signatures.collect::<Vec<_>>().join(" ")
}

//! A job's events as they happen.

use std::time::Duration;

use futures::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use store::Lease;
use store::events::{self, EventLevel, NewEvent};
use store::lease;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::{Client, START, TestApp};

/// Longer than any of this takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A stream that is read line by line.
pub(crate) struct Stream {
    response: Response,
    unread: String,
}

impl Stream {
    pub(crate) async fn open(client: &Client, job: &str, last_event_id: &str) -> Self {
        let path = format!("/v1/fine_tuning/jobs/{job}/events?stream=true");
        let request = client.request(Method::GET, &path);
        let response = request
            .header("last-event-id", last_event_id)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            unread: String::new(),
        }
    }

    /// The data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.find("\n\n") {
                let event: String = self.unread.drain(..end + 2).collect();
                if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                    return Some(data.to_owned());
                }
                continue;
            }
            let chunk = timeout(SOON, self.response.chunk())
                .await
                .expect("news")
                .unwrap()?;
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn event(&mut self) -> Value {
        serde_json::from_str(&self.next().await.expect("an event")).unwrap()
    }

    async fn message(&mut self) -> String {
        self.event().await["message"].as_str().unwrap().to_owned()
    }

    /// Reads on until it is cut.
    pub(crate) async fn ends_cut(mut self) {
        assert!(!self.rest().await.contains(&"[DONE]".to_owned()));
    }

    async fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(data) = self.next().await {
            rest.push(data);
        }
        rest
    }
}

async fn say(app: &TestApp, lease: &Lease, text: &str) {
    let mut tx = app
        .database
        .store()
        .tenant_tx(lease.project_id)
        .await
        .unwrap();
    let event = NewEvent::message(EventLevel::Info, text, START);
    events::report(&mut tx, lease, &[event]).await.unwrap();
    tx.commit().await.unwrap();
}

/// What an attempt does that begins, or goes on from `step`, and makes the steps up to `last`.
async fn train(app: &TestApp, lease: &Lease, step: u64, last: u64) {
    let store = app.database.store();
    let mut tx = store.tenant_tx(lease.project_id).await.unwrap();
    lease::resume_from(&mut tx, lease, step).await.unwrap();
    let steps = (step + 1..=last).map(|n| {
        let data = json!({"step": n, "attempt": lease.attempt});
        NewEvent::metrics(format!("Step {n}/5"), data, START)
    });
    let steps: Vec<NewEvent> = steps.collect();
    events::report(&mut tx, lease, &steps).await.unwrap();
    tx.commit().await.unwrap();
}

async fn cancel(app: &TestApp, job: &str) {
    app.alice
        .post_text(&format!("/v1/fine_tuning/jobs/{job}/cancel"), "")
        .await
        .ok();
}

async fn running(app: &TestApp) -> (String, Lease) {
    let job = app.alice.job(json!({})).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let claimed = app.claim(&app.worker_store().await).await;
    (job, claimed.lease)
}

#[tokio::test]
async fn a_stream_tells_the_past_the_present_and_the_end() {
    let app = TestApp::start().await;
    let (job, lease) = running(&app).await;
    let mut stream = Stream::open(&app.alice, &job, "").await;
    assert!(
        stream
            .message()
            .await
            .starts_with("Created fine-tuning job")
    );
    assert!(
        stream
            .message()
            .await
            .starts_with("Validating training file")
    );
    say(&app, &lease, "one").await;
    assert_eq!(stream.message().await, "one");
    say(&app, &lease, "two").await;
    let two = stream.event().await;
    assert_eq!(two["message"], "two");

    let mut resumed = Stream::open(&app.alice, &job, two["id"].as_str().unwrap()).await;
    cancel(&app, &job).await;
    assert_eq!(stream.message().await, "Fine-tuning job cancelled");
    assert_eq!(stream.rest().await, ["[DONE]"]);
    assert_eq!(resumed.message().await, "Fine-tuning job cancelled");
    assert_eq!(resumed.rest().await, ["[DONE]"]);

    let list = app
        .alice
        .get(&format!("/v1/fine_tuning/jobs/{job}/events"))
        .await
        .ok();
    let mut afterwards = Stream::open(&app.alice, &job, "").await.rest().await;
    assert_eq!(afterwards.pop().unwrap(), "[DONE]");
    afterwards.reverse();
    let afterwards: Vec<Value> = afterwards
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    assert_eq!(
        list["data"],
        json!(afterwards),
        "the same objects, in the other order"
    );
}

#[tokio::test]
async fn a_client_cut_off_before_a_crash_goes_on_where_it_was() {
    let app = TestApp::start().await;
    let (job, first) = running(&app).await;
    train(&app, &first, 0, 4).await;
    let mut stream = Stream::open(&app.alice, &job, "").await;
    let mut seen = Vec::new();
    while seen
        .last()
        .is_none_or(|event: &Value| event["message"] != "Step 4/5")
    {
        seen.push(stream.event().await);
    }
    drop(stream);

    // The worker is lost, and the next one goes on from a checkpoint at step 2.
    let worker = app.worker_store().await;
    let mut tx = worker.tenant_tx(first.project_id).await.unwrap();
    lease::retry_later(&mut tx, &first, Duration::ZERO, "lost")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let second = app.claim(&worker).await.lease;
    train(&app, &second, 2, 5).await;
    cancel(&app, &job).await;

    let repeated = [
        "Step 3/5",
        "Step 4/5",
        "Step 5/5",
        "Fine-tuning job cancelled",
    ];
    let path = format!("/v1/fine_tuning/jobs/{job}/events?limit=100");
    let all = app.alice.get(&path).await.ok();
    let all = all["data"].as_array().unwrap();
    let messages: Vec<&str> = all.iter().map(|e| e["message"].as_str().unwrap()).collect();
    assert!(
        messages
            .iter()
            .rev()
            .skip(2)
            .eq(["Step 1/5", "Step 2/5"].iter().chain(&repeated))
    );
    // The third of the first attempt was withdrawn, as the fourth was.
    for place in [&seen[4], &seen[5]] {
        let place = place["id"].as_str().unwrap();
        let mut resumed = Stream::open(&app.alice, &job, place).await;
        for message in repeated {
            assert_eq!(resumed.message().await, message);
        }
        assert_eq!(resumed.rest().await, ["[DONE]"]);
        let older = app.alice.get(&format!("{path}&after={place}")).await.ok();
        assert_eq!(older["data"].as_array().unwrap()[..], all[4..]);
    }
}

#[tokio::test]
async fn many_streams_of_one_job_all_hear_the_same() {
    let app = TestApp::start().await;
    let (job, lease) = running(&app).await;
    let mut streams = join_all((0..200).map(|_| Stream::open(&app.alice, &job, ""))).await;
    for n in 0..150 {
        say(&app, &lease, &n.to_string()).await;
    }
    cancel(&app, &job).await;
    let heard = join_all(streams.iter_mut().map(Stream::rest)).await;
    assert_eq!(heard[0].len(), 2 + 150 + 1 + 1);
    assert!(heard.iter().all(|one| *one == heard[0]));
}

#[tokio::test]
async fn a_place_that_is_no_event_of_the_job_is_refused() {
    let app = TestApp::start().await;
    let (job, _) = running(&app).await;
    let other = app.bob.job(json!({})).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let others = app
        .bob
        .get(&format!("/v1/fine_tuning/jobs/{other}/events"))
        .await
        .ok();
    let path = format!("/v1/fine_tuning/jobs/{job}/events?stream=true");
    for place in ["nowhere", others["data"][0]["id"].as_str().unwrap()] {
        let request = app
            .alice
            .request(Method::GET, &path)
            .header("last-event-id", place);
        let refused = app.alice.send(request).await.refusal();
        assert_eq!(
            (refused.0, refused.1.as_deref()),
            (400, Some("Last-Event-ID"))
        );
    }
    let strangers = app.bob.get(&path).await;
    assert_eq!(strangers.status, 404);
    let refused = app
        .alice
        .get(&path.replace("true", "maybe"))
        .await
        .refusal();
    assert_eq!(refused.1.as_deref(), Some("stream"));
}

#[tokio::test]
async fn a_service_that_stops_cuts_its_streams() {
    let app = TestApp::start().await;
    let (job, _) = running(&app).await;
    let config = app.config();
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(api::serve(config, listener, async {
        let _ = stopped.await;
    }));
    let client = Client::new(&url, Some(app.alice.key()));
    let mut stream = Stream::open(&client, &job, "").await;
    stream.message().await;
    stop.send(()).unwrap();
    // Well before the 20 seconds that requests under way are given.
    timeout(Duration::from_secs(10), service)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!stream.rest().await.contains(&"[DONE]".to_owned()));
}

#[tokio::test]
async fn who_is_let_in_no_longer_hears_no_more() {
    let app = TestApp::start().await;
    let (job, lease) = running(&app).await;
    let keys = format!("/v1/organization/projects/{}/api_keys", app.alice_project);
    let accounts = keys.replace("api_keys", "service_accounts");
    let made = async |path: &str, body: Value| app.admin.post(path, &body).await.ok();
    let revoked = made(&keys, json!({"name": "revoked"})).await;
    let expiring = made(&keys, json!({"name": "expiring", "expires_in_seconds": 60})).await;
    let account = made(&accounts, json!({"name": "ci"})).await;
    let open = async |secret: &Value| {
        let client = app.anonymous.with_key(secret.as_str().unwrap());
        Stream::open(&client, &job, "").await
    };
    let mut own = Stream::open(&app.alice, &job, "").await;
    let [first, second, expires, deleted] = [
        open(&revoked["value"]).await,
        open(&revoked["value"]).await,
        open(&expiring["value"]).await,
        open(&account["api_key"]["value"]).await,
    ];
    let revoke = async |path: &str, object: &Value| {
        let path = format!("{path}/{}", object["id"].as_str().unwrap());
        app.admin.delete(&path).await.ok();
    };
    revoke(&keys, &revoked).await;
    first.ends_cut().await;
    second.ends_cut().await;
    app.clock.advance(Duration::from_mins(1));
    expires.ends_cut().await;
    revoke(&accounts, &account).await;
    deleted.ends_cut().await;

    say(&app, &lease, "one").await;
    cancel(&app, &job).await;
    let heard = own.rest().await;
    assert_eq!(heard.last().unwrap(), "[DONE]");
    assert!(heard.iter().any(|event| event.contains("\"one\"")));
}

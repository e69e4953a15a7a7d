//! Webhooks, delivered to a real receiver and signed as it can verify.

mod receiver;

use std::time::Duration;

use api::outbound::target::{Lookup, Policy};
use api::webhooks::Sender;
use api::webhooks::deliver::Deliverer;
use domain::{Clock, JobError};
use serde_json::{Value, json};
use store::webhooks::delivery;
use store::{lease, queue};
use testkit::database::keyring;

use self::receiver::{Receiver, is_signed_with};
use crate::support::{Client, OPEN, START, TestApp};

const PATH: &str = "/v1/webhook_endpoints";
const EVENTS: [&str; 3] = [
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
];

async fn endpoint(client: &Client, url: &str) -> Value {
    let body = json!({"name": "ours", "url": url, "event_types": EVENTS});
    client.post(PATH, &body).await.ok()
}

fn path_of(endpoint: &Value) -> String {
    format!("{PATH}/{}", endpoint["id"].as_str().unwrap())
}

fn secret_of(endpoint: &Value) -> &str {
    endpoint["signing_secret"].as_str().unwrap()
}

async fn deliverer(app: &TestApp, sender: Sender) -> Deliverer {
    let clock = Clock::from(app.clock.clone());
    Deliverer::new(app.worker_store().await, keyring(), sender, clock)
}

/// One round of deliveries; says how many attempts there were.
async fn deliver(app: &TestApp) -> usize {
    let sender = Sender::new(OPEN, Lookup::system()).unwrap();
    deliverer(app, sender).await.deliver_due().await.unwrap()
}

/// Everything that waits is due now.
async fn make_due(app: &TestApp) {
    sqlx_run(app, "UPDATE webhook_deliveries SET next_attempt_at = now()").await;
}

async fn sqlx_run(app: &TestApp, statement: &'static str) {
    app.database.run(statement).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_is_made_shown_changed_and_deleted() {
    let app = TestApp::start().await;
    let made = endpoint(&app.alice, "http://127.0.0.1:9/hook").await;
    assert_eq!(made["object"], "webhook_endpoint");
    assert_eq!(made["event_types"], json!(EVENTS));
    let secret = secret_of(&made).to_owned();
    let hint = made["signing_secret_hint"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.ends_with(&hint[hint.len() - 4..]));

    let shown = app.alice.get(&path_of(&made)).await;
    assert!(!shown.text.contains(&secret) && shown.ok().get("signing_secret").is_none());
    app.clock.advance(Duration::from_mins(1));
    let same = app.alice.post(&path_of(&made), &json!({})).await.ok();
    assert_eq!(same["updated_at"], made["created_at"]);
    let change = json!({"name": "theirs", "event_types": ["batch.completed", "batch.completed"]});
    let changed = app.alice.post(&path_of(&made), &change).await.ok();
    assert_eq!(
        (&changed["name"], &changed["url"]),
        (&json!("theirs"), &made["url"])
    );
    assert_eq!(changed["event_types"], json!(["batch.completed"]));
    assert_eq!(
        changed["updated_at"],
        made["created_at"].as_i64().unwrap() + 60
    );

    let second = endpoint(&app.alice, "http://127.0.0.1:9/second").await;
    let list = app.alice.get(&format!("{PATH}?limit=1")).await.ok();
    assert_eq!(
        (&list["data"][0]["id"], &list["has_more"]),
        (&second["id"], &json!(true))
    );
    let after = format!("{PATH}?after={}", second["id"].as_str().unwrap());
    assert_eq!(
        app.alice.get(&after).await.ok()["data"][0]["id"],
        made["id"]
    );

    let gone = app.alice.delete(&path_of(&made)).await.ok();
    assert_eq!(
        gone,
        json!({"id": made["id"], "object": "webhook_endpoint.deleted", "deleted": true})
    );
    assert_eq!(app.alice.get(&path_of(&made)).await.status, 404);
    let types = app.alice.get("/v1/webhook_event_types").await.ok();
    assert_eq!(types["data"].as_array().unwrap().len(), 7);
}

#[tokio::test]
async fn a_repetition_makes_no_second_endpoint_and_is_told_which_was_made() {
    let app = TestApp::start().await;
    let body = json!({"name": "ours", "url": "http://127.0.0.1:9/hook", "event_types": EVENTS});
    let send = async || {
        let request = app.alice.request(reqwest::Method::POST, PATH);
        app.alice
            .send(request.header("idempotency-key", "k1").json(&body))
            .await
    };
    let made = send().await.ok();
    for _ in 0..2 {
        let again = send().await;
        assert_eq!(
            again.refusal(),
            (409, None, Some("already_made".to_owned()))
        );
        assert!(
            again.text.contains(made["id"].as_str().unwrap()),
            "{}",
            again.text
        );
        assert!(!again.text.contains(secret_of(&made)), "{}", again.text);
        assert_eq!(again.header("x-should-retry"), "false");
    }
    let list = app.alice.get(PATH).await.ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    // The secret is nowhere but sealed in its own row.
    sqlx_run(
        &app,
        "DO $$ BEGIN ASSERT (SELECT count(*) = 1 AND bool_and(position('whsec'::bytea IN body) = 0)
                             FROM idempotency_keys); END $$",
    )
    .await;
}

#[tokio::test]
async fn what_makes_no_endpoint_names_its_field() {
    let app = TestApp::start().await;
    let good = json!({"name": "n", "url": "http://127.0.0.1:9/", "event_types": ["batch.failed"]});
    for (field, value) in [
        ("name", json!("")),
        ("name", json!(null)),
        ("name", json!("x".repeat(200))),
        ("url", json!("ftp://127.0.0.1/")),
        ("url", json!(3)),
        ("url", json!("http://nobody.invalid/")),
        ("event_types", json!([])),
        ("event_types", json!(["response.completed"])),
        ("event_types", json!("batch.failed")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let refusal = app.alice.post(PATH, &body).await.refusal();
        assert_eq!(
            (refusal.0, refusal.1.as_deref()),
            (400, Some(field)),
            "{body}"
        );
    }
    app.alice.post(PATH, &good).await.ok();
}

#[tokio::test]
async fn an_event_is_delivered_with_a_signature_that_verifies() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let made = endpoint(&app.alice, &receiver.url).await;
    let job = app.alice.job(json!({})).await;
    app.finish_next_job().await;
    assert_eq!((deliver(&app).await, deliver(&app).await), (1, 0));
    let [request] = &receiver.requests()[..] else {
        panic!("one request");
    };
    assert!(is_signed_with(request, &[secret_of(&made)]));
    assert_eq!(
        request.header("webhook-timestamp"),
        START.unix_timestamp().to_string()
    );
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert!(body["id"].as_str().unwrap().starts_with("evt_"));
    assert_eq!(
        body,
        json!({"id": body["id"], "object": "event", "created_at": START.unix_timestamp(),
               "type": "fine_tuning.job.succeeded", "data": {"id": job["id"]}})
    );
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_again_under_the_same_id() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let made = endpoint(&app.alice, &receiver.url).await;
    receiver.answer_with([500, 302, 204]);
    app.alice.job(json!({})).await;
    app.finish_next_job().await;
    assert_eq!(deliver(&app).await, 1);
    // Not at once.
    assert_eq!(deliver(&app).await, 0);
    let health = app.alice.get(&path_of(&made)).await.ok()["attune"].clone();
    assert_eq!(health["last_failure"], "the receiver answered 500");
    assert_eq!(health["failing_since"], START.unix_timestamp());
    for _ in 0..2 {
        app.clock.advance(Duration::from_mins(1));
        make_due(&app).await;
        assert_eq!(deliver(&app).await, 1);
    }
    make_due(&app).await;
    assert_eq!(deliver(&app).await, 0);
    let requests = receiver.requests();
    // The redirect led to /elsewhere, where nobody went.
    assert!(
        requests.iter().all(|request| request.path == "/hook"),
        "{requests:?}"
    );
    let ids: Vec<&str> = requests
        .iter()
        .map(|request| request.header("webhook-id"))
        .collect();
    assert_eq!(ids, [ids[0]; 3]);
    let times: Vec<&str> = requests
        .iter()
        .map(|request| request.header("webhook-timestamp"))
        .collect();
    assert!(times[0] < times[1] && times[1] < times[2]);
    assert!(
        requests
            .iter()
            .all(|request| is_signed_with(request, &[secret_of(&made)]))
    );
    let health = app.alice.get(&path_of(&made)).await.ok()["attune"].clone();
    assert_eq!(
        health,
        json!({"disabled_at": null, "failing_since": null, "last_failure": null})
    );
}

#[tokio::test]
async fn both_secrets_sign_for_a_day_after_a_rotation_that_asks_for_it() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let made = endpoint(&app.alice, &receiver.url).await;
    let rotate = async |body: Value| {
        let path = format!("{}/rotate_secret", path_of(&made));
        app.alice.post(&path, &body).await.ok()
    };
    let test = async || {
        let path = format!("{}/test", path_of(&made));
        let body = json!({"event_type": "batch.completed"});
        app.alice.post(&path, &body).await.ok();
        receiver.requests().pop().unwrap()
    };
    let (first, second) = (
        secret_of(&made),
        rotate(json!({"keep_old_secret_active_for_24_hours": true})).await,
    );
    let second = secret_of(&second);
    assert!(is_signed_with(&test().await, &[second, first]));
    app.clock.advance(Duration::from_hours(24));
    assert!(is_signed_with(&test().await, &[second]));
    let third = rotate(json!({})).await;
    assert!(is_signed_with(&test().await, &[secret_of(&third)]));
}

#[tokio::test]
async fn a_test_says_what_the_receiver_answered() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let made = endpoint(&app.alice, &receiver.url).await;
    let path = format!("{}/test", path_of(&made));
    receiver.answer_with([418]);
    let body = json!({"event_type": "fine_tuning.job.failed"});
    assert_eq!(
        app.alice.post(&path, &body).await.ok(),
        json!({"object": "webhook_endpoint.test", "event_type": "fine_tuning.job.failed", "status_code": 418,
               "success": true, "webhook_endpoint_id": made["id"]})
    );
    let refusal = app
        .alice
        .post(&path, &json!({"event_type": "x"}))
        .await
        .refusal();
    assert_eq!(refusal.1.as_deref(), Some("event_type"));
    drop(receiver);
    let refusal = app.alice.post(&path, &body).await.refusal();
    assert_eq!(refusal.2.as_deref(), Some("webhook_not_delivered"));
}

#[tokio::test]
async fn every_end_of_a_job_is_told_once() {
    let app = TestApp::start().await;
    endpoint(&app.alice, "http://127.0.0.1:9/").await;
    // Another tenant's endpoint is told nothing of it.
    endpoint(&app.bob, "http://127.0.0.1:9/").await;
    let worker = app.worker_store().await;

    app.alice.job(json!({})).await;
    app.finish_next_job().await;

    let cancelled = app.alice.job(json!({})).await;
    let cancel = format!(
        "/v1/fine_tuning/jobs/{}/cancel",
        cancelled["id"].as_str().unwrap()
    );
    for _ in 0..2 {
        app.alice.post(&cancel, &json!({})).await.ok();
    }

    app.alice.job(json!({})).await;
    let claimed = app.claim(&worker).await;
    let error = JobError {
        code: "x".to_owned(),
        message: "y".to_owned(),
        param: None,
    };
    let failed = claimed.job.clone().fail(error, START).unwrap();
    for commits in [false, true] {
        let mut tx = worker.tenant_tx(claimed.lease.project_id).await.unwrap();
        lease::save(&mut tx, &claimed.lease, &failed).await.unwrap();
        if commits {
            tx.commit().await.unwrap();
        }
    }

    app.alice.job(json!({})).await;
    app.claim(&worker).await;
    sqlx_run(
        &app,
        "UPDATE jobs SET max_attempts = attempt, lease_expires_at = now() - interval '1 s'
                    WHERE lease_token IS NOT NULL",
    )
    .await;
    let mut tx = worker.worker_tx().await.unwrap();
    assert!(queue::reap(&mut tx, 10).await.unwrap()[0].failed);
    tx.commit().await.unwrap();

    let mut tx = worker.worker_tx().await.unwrap();
    let due = delivery::take(&mut tx, 100, Duration::from_mins(1))
        .await
        .unwrap();
    assert!(due.iter().all(|told| told.project_id == app.alice_project));
    let mut told: Vec<&str> = due.iter().map(|told| told.event_type.as_str()).collect();
    told.sort_unstable();
    let [succeeded, failed, cancelled] = EVENTS;
    assert_eq!(told, [cancelled, failed, failed, succeeded]);
}

#[tokio::test]
async fn what_a_killed_deliverer_took_is_delivered_by_the_next() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    endpoint(&app.alice, &receiver.url).await;
    app.alice.job(json!({})).await;
    app.finish_next_job().await;
    let worker = app.worker_store().await;
    let mut tx = worker.worker_tx().await.unwrap();
    let taken = delivery::take(&mut tx, 10, Duration::from_mins(2))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!((taken.len(), deliver(&app).await), (1, 0));
    make_due(&app).await;
    assert_eq!(deliver(&app).await, 1);
    assert_eq!(
        receiver.requests()[0].header("webhook-id"),
        taken[0].id.to_string()
    );
    // The dead one was only slow: what it says now changes nothing.
    let mut tx = worker.worker_tx().await.unwrap();
    let next = delivery::failed(&mut tx, &taken[0], "late", false, START)
        .await
        .unwrap();
    assert_eq!(next, delivery::Next::NotOurs);
}

#[tokio::test]
async fn an_endpoint_that_nobody_answers_for_days_is_disabled_until_it_is_updated() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let made = endpoint(&app.alice, &receiver.url).await;
    receiver.answer_with([503; 20]);
    app.alice.job(json!({})).await;
    app.finish_next_job().await;
    let mut attempts = 0;
    for _ in 0..20 {
        attempts += deliver(&app).await;
        app.clock.advance(Duration::from_hours(7));
        make_due(&app).await;
    }
    assert_eq!(attempts, 13);
    let health = app.alice.get(&path_of(&made)).await.ok()["attune"].clone();
    assert!(health["disabled_at"].is_i64(), "{health}");
    // Nothing is written down for it meanwhile.
    app.alice.job(json!({})).await;
    app.finish_next_job().await;
    assert_eq!(deliver(&app).await, 0);
    let enabled = app.alice.post(&path_of(&made), &json!({})).await.ok();
    assert_eq!(enabled["attune"]["disabled_at"], Value::Null);
    receiver.answer_with([410]);
    app.alice.job(json!({})).await;
    app.finish_next_job().await;
    assert_eq!(deliver(&app).await, 1);
    let health = app.alice.get(&path_of(&made)).await.ok()["attune"].clone();
    assert!(health["disabled_at"].is_i64(), "{health}");
}

#[tokio::test]
async fn a_name_that_turns_private_after_it_was_checked_is_not_connected_to() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let made = endpoint(&app.alice, &receiver.url).await;
    // As if the name had been public when the endpoint was made.
    let url = receiver.url.replace("127.0.0.1", "hooks.example.com");
    app.database
        .run_with("UPDATE webhook_endpoints SET url = $1", &url)
        .await
        .unwrap();
    app.alice.job(json!({})).await;
    app.finish_next_job().await;
    let here = |_| async { Ok(vec!["127.0.0.1".parse().unwrap()]) };
    let strict = Policy {
        allow_http: true,
        allow_private: false,
    };
    let sender = Sender::new(strict, Lookup::of(here)).unwrap();
    assert_eq!(
        deliverer(&app, sender).await.deliver_due().await.unwrap(),
        1
    );
    assert!(receiver.requests().is_empty());
    let health = app.alice.get(&path_of(&made)).await.ok()["attune"].clone();
    let reason = health["last_failure"].as_str().unwrap();
    assert!(
        reason.contains("not public") && !reason.contains("127.0.0.1"),
        "{reason}"
    );

    // What is allowed is looked up once, and the answer is what is connected to.
    let lookups = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = {
        let lookups = lookups.clone();
        move |_| {
            let n = lookups.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move {
                Ok(vec![
                    if n == 0 { "127.0.0.1" } else { "192.0.2.1" }
                        .parse()
                        .unwrap(),
                ])
            }
        }
    };
    make_due(&app).await;
    let sender = Sender::new(OPEN, Lookup::of(counted)).unwrap();
    assert_eq!(
        deliverer(&app, sender).await.deliver_due().await.unwrap(),
        1
    );
    assert_eq!(receiver.requests().len(), 1);
    assert_eq!(lookups.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_service_delivers_by_itself() {
    let (app, receiver) = (TestApp::start().await, Receiver::start().await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serving = tokio::spawn(api::serve(app.config(), listener, std::future::pending()));
    endpoint(&app.alice, &receiver.url).await;
    app.alice.job(json!({})).await;
    app.finish_next_job().await;
    receiver.next().await;
    serving.abort();
}

//! A request that makes something takes effect once.

use std::collections::HashSet;
use std::time::Duration;

use api::sweeper::Sweeper;
use domain::Clock;
use futures::future::join_all;
use serde_json::{Value, json};
use store::idempotency::{Mark, Request, Standing};

use crate::support::{Answer, Client, Form, ROWS, START, TestApp};

const JOBS: &str = "/v1/fine_tuning/jobs";

async fn body(app: &TestApp) -> Value {
    json!({"model": "tiny", "training_file": app.alice.training_file().await})
}

async fn create(client: &Client, header: (&str, &str), body: &Value) -> Answer {
    let request = client.request(reqwest::Method::POST, JOBS);
    client
        .send(request.header(header.0, header.1).json(body))
        .await
}

async fn n_jobs(client: &Client) -> usize {
    let list = client.get(&format!("{JOBS}?limit=100")).await.ok();
    list["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_same_key_and_body_get_the_same_answer_again() {
    let app = TestApp::start().await;
    let body = body(&app).await;
    let first = create(&app.alice, ("idempotency-key", "k1"), &body).await;
    first.ok();
    assert_eq!(first.header("idempotent-replayed"), "");
    app.clock.advance(Duration::from_hours(23));
    let second = create(&app.alice, ("idempotency-key", "k1"), &body).await;
    assert_eq!((second.status, &second.text), (200, &first.text));
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(second.header("content-type"), "application/json");
    assert_eq!(n_jobs(&app.alice).await, 1);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let app = TestApp::start().await;
    let mut body = body(&app).await;
    create(&app.alice, ("idempotency-key", "k1"), &body)
        .await
        .ok();
    body["suffix"] = json!("other");
    let refused = create(&app.alice, ("idempotency-key", "k1"), &body).await;
    let expected = (
        422,
        Some("Idempotency-Key".to_owned()),
        Some("idempotency_key_reused".to_owned()),
    );
    assert_eq!(refused.refusal(), expected);
    create(&app.alice, ("idempotency-key", "k2"), &body)
        .await
        .ok();
    assert_eq!(n_jobs(&app.alice).await, 2);
}

#[tokio::test]
async fn twenty_requests_at_once_with_one_key_make_one_job() {
    let app = TestApp::start().await;
    let body = body(&app).await;
    let answers =
        join_all((0..20).map(|_| create(&app.alice, ("idempotency-key", "k1"), &body))).await;
    let mut ids = HashSet::new();
    for answer in &answers {
        if answer.status == 409 {
            assert_eq!(answer.header("x-should-retry"), "true");
            let code = answer.refusal().2;
            assert_eq!(code.as_deref(), Some("request_in_flight"));
        } else {
            ids.insert(answer.ok()["id"].to_string());
        }
    }
    assert_eq!((ids.len(), n_jobs(&app.alice).await), (1, 1));
}

#[tokio::test]
async fn while_a_request_is_carried_out_its_repetition_is_told_to_come_back() {
    let app = TestApp::start().await;
    let body = body(&app).await;
    let key = ("idempotency-key", "k1");
    let mut tx = app
        .database
        .store()
        .tenant_tx(app.alice_project)
        .await
        .unwrap();
    let same = Request {
        route: format!("POST {JOBS}"),
        mark: Mark::Key("k1".to_owned()),
        fingerprint: [0; 32],
    };
    let standing = store::idempotency::open(&mut tx, &same, START)
        .await
        .unwrap();
    assert_eq!(standing, Standing::New);
    let refused = create(&app.alice, key, &body).await;
    assert_eq!(
        (refused.status, refused.header("x-should-retry")),
        (409, "true")
    );
    let answer = store::idempotency::Answer {
        status: 200,
        body: b"{}".to_vec(),
    };
    store::idempotency::keep(&mut tx, &same, &answer, START)
        .await
        .unwrap();
    // The process dies before its commit: nothing was made, nothing is kept, nothing is locked.
    drop(tx);
    let again = loop {
        // The pool undoes it a moment after the drop.
        let again = create(&app.alice, key, &body).await;
        if again.status != 409 {
            break again;
        }
    };
    again.ok();
    assert_eq!(n_jobs(&app.alice).await, 1);
}

#[tokio::test]
async fn what_was_refused_leaves_its_key_unused() {
    let app = TestApp::start().await;
    let good = body(&app).await;
    let mut bad = good.clone();
    bad["training_file"] = json!("file-none");
    assert_eq!(
        create(&app.alice, ("idempotency-key", "k1"), &bad)
            .await
            .status,
        404
    );
    create(&app.alice, ("idempotency-key", "k1"), &good)
        .await
        .ok();
}

#[tokio::test]
async fn a_key_belongs_to_its_project() {
    let app = TestApp::start().await;
    let of_alice = body(&app).await;
    create(&app.alice, ("idempotency-key", "k1"), &of_alice)
        .await
        .ok();
    let asked_by_bob = create(&app.bob, ("idempotency-key", "k1"), &of_alice).await;
    assert_eq!(
        asked_by_bob.status, 404,
        "neither the answer nor the key's use shows"
    );
    let of_bob = json!({"model": "tiny", "training_file": app.bob.training_file().await});
    create(&app.bob, ("idempotency-key", "k1"), &of_bob)
        .await
        .ok();
}

#[tokio::test]
async fn a_silent_retry_is_answered_with_the_first_job() {
    let app = TestApp::start().await;
    let body = body(&app).await;
    let count = |n: &'static str| ("x-stainless-retry-count", n);
    let first = create(&app.alice, count("0"), &body).await;
    app.clock.advance(Duration::from_mins(9));
    let retry = create(&app.alice, count("1"), &body).await;
    assert_eq!(retry.ok()["id"], first.ok()["id"]);
    // Twice on purpose is twice.
    let again = create(&app.alice, count("0"), &body).await;
    assert_ne!(again.ok()["id"], first.ok()["id"]);
    let mut other = body.clone();
    other["seed"] = json!(1);
    assert_ne!(
        create(&app.alice, count("1"), &other).await.ok()["id"],
        first.ok()["id"]
    );
    app.clock.advance(Duration::from_mins(11));
    let late = create(&app.alice, count("1"), &body).await;
    assert_ne!(late.ok()["id"], again.ok()["id"]);
}

#[tokio::test]
async fn twenty_retries_at_once_make_one_job() {
    let app = TestApp::start().await;
    let body = body(&app).await;
    let header = ("x-stainless-retry-count", "1");
    let answers = join_all((0..20).map(|_| create(&app.alice, header, &body))).await;
    assert!(answers.iter().any(|answer| answer.status == 200));
    assert_eq!(n_jobs(&app.alice).await, 1);
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day_and_then_swept() {
    let app = TestApp::start().await;
    let mut body = body(&app).await;
    let key = ("idempotency-key", "k1");
    create(&app.alice, key, &body).await.ok();
    app.clock.advance(Duration::from_hours(24));
    body["seed"] = json!(1);
    create(&app.alice, key, &body).await.ok();
    let clock = Clock::from(app.clock.clone());
    let sweeper = Sweeper::new(app.worker_store().await, app.buckets.clone(), clock);
    assert_eq!(sweeper.delete_old_answers().await.unwrap(), 0);
    app.clock.advance(Duration::from_hours(24));
    assert_eq!(sweeper.delete_old_answers().await.unwrap(), 1);
}

#[tokio::test]
async fn a_key_too_long_is_refused() {
    let app = TestApp::start().await;
    let body = body(&app).await;
    let refused = create(&app.alice, ("idempotency-key", &"k".repeat(256)), &body).await;
    let expected = (
        400,
        Some("Idempotency-Key".to_owned()),
        Some("invalid_value".to_owned()),
    );
    assert_eq!(refused.refusal(), expected);
    assert_eq!(n_jobs(&app.alice).await, 0);
}

#[tokio::test]
async fn a_file_that_is_sent_twice_is_stored_once() {
    let app = TestApp::start().await;
    let send = async |key: &str, rows: &str| {
        let form = Form::of("fine-tune", rows).finish();
        let request = app.alice.request(reqwest::Method::POST, "/v1/files");
        let request = request
            .header("content-type", Form::CONTENT_TYPE)
            .header("idempotency-key", key);
        app.alice.send(request.body(form)).await
    };
    let first = send("k1", ROWS).await;
    let second = send("k1", ROWS).await;
    assert_eq!((second.ok(), &second.text), (first.ok(), &first.text));
    assert_eq!(app.object_keys().await.len(), 1);
    let other = send("k1", &ROWS.repeat(2)).await;
    assert_eq!(other.status, 422, "{}", other.text);
    assert_eq!(
        app.object_keys().await.len(),
        1,
        "what was refused does not stay"
    );
    assert_ne!(send("k2", ROWS).await.ok()["id"], first.ok()["id"]);
}

#[tokio::test]
async fn an_upload_and_a_batch_are_begun_once() {
    let app = TestApp::start().await;
    let row = json!({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
                     "body": {"model": "tiny", "messages": [{"role": "user", "content": "a"}]}});
    let input = app
        .alice
        .upload(Form::of("batch", format!("{row}\n")))
        .await
        .ok();
    for (path, body) in [
        (
            "/v1/uploads",
            json!({"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/jsonl"}),
        ),
        (
            "/v1/batches",
            json!({"input_file_id": input["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
        ),
    ] {
        let send = async || {
            let request = app.alice.request(reqwest::Method::POST, path);
            // The same key on another route is another key.
            app.alice
                .send(request.header("idempotency-key", "k").json(&body))
                .await
        };
        let (first, second) = (send().await, send().await);
        assert_eq!(second.ok()["id"], first.ok()["id"], "{path}");
        assert_eq!(second.header("idempotent-replayed"), "true", "{path}");
    }
}

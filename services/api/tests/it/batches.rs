//! Batches, answered by a stand-in for the inference service that can be held up.

mod limits;
mod refusals;
mod stand_in;

use std::time::Duration;

use api::InferenceClient;
use api::batches::{Pace, Runner, TurnError};
use api::throttle::Throttle;
use domain::Clock;
use serde_json::{Value, json};
use store::Store;
use store::webhooks::delivery;
use tokio_util::sync::CancellationToken;

use crate::support::{Client, Form, START, TestApp, redacted};
use stand_in::StandIn;

pub(crate) const PACE: Pace = Pace {
    turn: Duration::from_secs(20),
    lease: Duration::from_mins(1),
    heartbeat: Duration::from_millis(20),
    poll: Duration::from_millis(20),
    backoff: Duration::from_millis(10),
};

/// A line for each model, called `request-N` from 1.
pub(crate) fn input(models: &[&str]) -> String {
    let lines = models.iter().enumerate().map(|(n, model)| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        let line = json!({
            "custom_id": format!("request-{}", n + 1),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        });
        format!("{line}\n")
    });
    lines.collect()
}

pub(crate) fn request(file: &str) -> Value {
    json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"})
}

impl Client {
    /// The id of a new file of requests.
    pub(crate) async fn batch_input(&self, content: &str) -> String {
        let answer = self.upload(Form::of("batch", content)).await.ok();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// The id of a new batch with a line for each model.
    pub(crate) async fn batch(&self, models: &[&str]) -> String {
        let file = self.batch_input(&input(models)).await;
        let batch = self.post("/v1/batches", &request(&file)).await.ok();
        batch["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn found_batch(&self, id: &str) -> Value {
        self.get(&format!("/v1/batches/{id}")).await.ok()
    }

    async fn cancel_batch(&self, id: &str) -> Value {
        let path = format!("/v1/batches/{id}/cancel");
        self.post_text(&path, "").await.ok()
    }

    /// The lines of the file that a batch names under `field`.
    async fn lines(&self, batch: &Value, field: &str) -> Vec<Value> {
        let Some(file) = batch[field].as_str() else {
            return Vec::new();
        };
        let content = self.get(&format!("/v1/files/{file}/content")).await;
        let lines = content.text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// What `custom_id`s the lines have.
fn ids(lines: &[Value]) -> Vec<&str> {
    let ids = lines.iter().map(|line| line["custom_id"].as_str().unwrap());
    ids.collect()
}

pub(crate) async fn start() -> (TestApp, StandIn) {
    let stand_in = StandIn::start().await;
    (TestApp::start_with_inference(&stand_in.url).await, stand_in)
}

pub(crate) async fn runner(app: &TestApp, stand_in: &StandIn, pace: Pace) -> Runner {
    Runner::new(
        app.worker_store().await,
        app.buckets.clone(),
        Clock::from(app.clock.clone()),
        InferenceClient::new(&stand_in.url, "internal".to_owned()).unwrap(),
        Throttle::new(Clock::from(app.clock.clone()), 1),
        pace,
    )
}

pub(crate) async fn take_turn(runner: &Runner) -> bool {
    runner.take_turn(&CancellationToken::new()).await.unwrap()
}

/// Looks until the batch is as it should be; the test's own limit of time ends a wait in vain.
async fn until(app: &TestApp, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let batch = app.alice.found_batch(id).await;
        if is_so(&batch) {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_batch_is_described_with_every_key() {
    let (app, stand_in) = start().await;
    let file = app.alice.batch_input(&input(&["ok", "ok", "ok"])).await;
    let mut body = request(&file);
    body["metadata"] = json!({"team": "a"});
    let created = app.alice.post("/v1/batches", &body).await.ok();
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["status"], "validating");

    assert!(take_turn(&runner(&app, &stand_in, PACE).await).await);
    let done = app.alice.found_batch(id).await;
    insta::assert_json_snapshot!(redacted(&done), @r#"
    {
      "cancelled_at": null,
      "cancelling_at": null,
      "completed_at": 1795521600,
      "completion_window": "24h",
      "created_at": 1795521600,
      "endpoint": "/v1/chat/completions",
      "error_file_id": null,
      "errors": null,
      "expired_at": null,
      "expires_at": 1795608000,
      "failed_at": null,
      "finalizing_at": 1795521600,
      "id": "[batch]",
      "in_progress_at": 1795521600,
      "input_file_id": "[file]",
      "metadata": {
        "team": "a"
      },
      "model": "ok",
      "object": "batch",
      "output_file_id": "[file]",
      "request_counts": {
        "completed": 3,
        "failed": 0,
        "total": 3
      },
      "status": "completed",
      "usage": {
        "input_tokens": 21,
        "input_tokens_details": {
          "cached_tokens": 0
        },
        "output_tokens": 15,
        "output_tokens_details": {
          "reasoning_tokens": 0
        },
        "total_tokens": 36
      }
    }
    "#);
}

#[tokio::test]
async fn every_line_is_answered_in_the_name_of_its_project() {
    let (app, stand_in) = start().await;
    let file = app.alice.batch_input(&input(&["ok", "ok", "ok"])).await;
    let mut body = request(&file);
    body["output_expires_after"] = json!({"anchor": "created_at", "seconds": 3600});
    let created = app.alice.post("/v1/batches", &body).await.ok();
    take_turn(&runner(&app, &stand_in, PACE).await).await;
    let done = app.alice.found_batch(created["id"].as_str().unwrap()).await;
    let lines = app.alice.lines(&done, "output_file_id").await;
    insta::assert_json_snapshot!(redacted(&lines[0]), @r#"
    {
      "custom_id": "request-1",
      "error": null,
      "id": "batch_[request]",
      "response": {
        "body": {
          "choices": [
            {
              "index": 0,
              "message": {
                "content": "hello",
                "role": "assistant"
              }
            }
          ],
          "model": "ok",
          "object": "chat.completion",
          "usage": {
            "completion_tokens": 5,
            "prompt_tokens": 7,
            "total_tokens": 12
          }
        },
        "request_id": "[request]",
        "status_code": 200
      }
    }
    "#);
    assert_eq!(ids(&lines), ["request-1", "request-2", "request-3"]);
    assert_eq!(stand_in.projects(), [app.alice_project.to_string()]);

    let path = format!("/v1/files/{}", done["output_file_id"].as_str().unwrap());
    let file = app.alice.get(&path).await.ok();
    assert_eq!(
        (&file["purpose"], &file["expires_at"]),
        (
            &json!("batch_output"),
            &json!(START.unix_timestamp() + 3600)
        )
    );
}

#[tokio::test]
async fn input_that_cannot_be_used_fails_the_batch_and_asks_for_nothing() {
    let (app, stand_in) = start().await;
    let content = format!("{}{{\"custom_id\": 1}}\nnot json\n", input(&["ok"]));
    let file = app.alice.batch_input(&content).await;
    let batch = app.alice.post("/v1/batches", &request(&file)).await.ok();
    let id = batch["id"].as_str().unwrap();
    assert!(take_turn(&runner(&app, &stand_in, PACE).await).await);
    let failed = app.alice.found_batch(id).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["failed_at"], START.unix_timestamp());
    insta::assert_json_snapshot!(failed["errors"], @r#"
    {
      "data": [
        {
          "code": "missing_required_parameter",
          "line": 2,
          "message": "`custom_id` must be a string that is not empty.",
          "param": "custom_id"
        },
        {
          "code": "invalid_json_line",
          "line": 3,
          "message": "The line is not valid JSON at column 2.",
          "param": null
        }
      ],
      "object": "list"
    }
    "#);
    assert_eq!(stand_in.n_asked(), 0);
}

#[tokio::test]
async fn a_line_that_cannot_be_answered_has_an_error_and_the_others_an_answer() {
    let (app, stand_in) = start().await;
    let silent = json!({
        "custom_id": "silent", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "ok", "messages": []},
    });
    let content = format!("{}{silent}\n", input(&["missing", "ok", "broken"]));
    let file = app.alice.batch_input(&content).await;
    let batch = app.alice.post("/v1/batches", &request(&file)).await.ok();
    take_turn(&runner(&app, &stand_in, PACE).await).await;
    let done = app.alice.found_batch(batch["id"].as_str().unwrap()).await;
    assert_eq!(
        (&done["status"], &done["request_counts"]),
        (
            &json!("completed"),
            &json!({"total": 4, "completed": 1, "failed": 3})
        )
    );
    let answered = app.alice.lines(&done, "output_file_id").await;
    assert_eq!(ids(&answered), ["request-2"]);
    let errors = app.alice.lines(&done, "error_file_id").await;
    assert_eq!(ids(&errors), ["request-1", "request-3", "silent"]);
    let statuses: Vec<_> = errors
        .iter()
        .map(|line| line["response"]["status_code"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [404, 500, 400]);
    let code = &errors[0]["response"]["body"]["error"]["code"];
    assert_eq!(code, "model_not_found");
    assert!(!json!(errors).to_string().contains("secret"));
}

#[tokio::test]
async fn a_service_that_is_busy_is_asked_again() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["busy", "limited"]).await;
    take_turn(&runner(&app, &stand_in, PACE).await).await;
    let done = app.alice.found_batch(&id).await;
    assert_eq!(done["request_counts"]["completed"], 2, "{done}");
    assert_eq!(stand_in.n_asked(), 6);
}

#[tokio::test]
async fn a_line_without_an_answer_is_left_to_the_next_turn() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["away"]).await;
    let short = Pace {
        turn: Duration::from_millis(200),
        ..PACE
    };
    let runner = runner(&app, &stand_in, short).await;
    assert!(take_turn(&runner).await);
    let batch = app.alice.found_batch(&id).await;
    assert_eq!(batch["status"], "in_progress");
    assert!(stand_in.n_asked() > 1);
    // The window ends.
    app.clock.advance(Duration::from_hours(24));
    assert!(take_turn(&runner).await);
    let batch = app.alice.found_batch(&id).await;
    assert_eq!(
        (&batch["status"], &batch["output_file_id"]),
        (&json!("expired"), &json!(null))
    );
    let errors = app.alice.lines(&batch, "error_file_id").await;
    assert_eq!(errors[0]["error"]["code"], "batch_expired");
    assert_eq!(errors[0]["response"], json!(null));
}

#[tokio::test]
async fn a_batch_cancelled_midway_keeps_what_was_answered() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["ok", "ok", "held", "held"]).await;
    let runner = runner(&app, &stand_in, PACE).await;
    let turn = tokio::spawn(async move { take_turn(&runner).await });
    until(&app, &id, |batch| batch["request_counts"]["completed"] == 2).await;

    let cancelling = app.alice.cancel_batch(&id).await;
    assert_eq!(cancelling["status"], "cancelling");
    assert!(turn.await.unwrap());
    let done = app.alice.found_batch(&id).await;
    assert_eq!(done["status"], "cancelled");
    assert_eq!(done["cancelled_at"], START.unix_timestamp());
    let answered = app.alice.lines(&done, "output_file_id").await;
    assert_eq!(ids(&answered), ["request-1", "request-2"]);
    let left = app.alice.lines(&done, "error_file_id").await;
    assert_eq!(ids(&left), ["request-3", "request-4"]);
    assert_eq!(left[0]["error"]["code"], "batch_cancelled");
    assert_eq!(app.alice.cancel_batch(&id).await, done);
}

#[tokio::test]
async fn a_batch_goes_on_where_a_crash_left_it() {
    let (app, stand_in) = start().await;
    let id = app
        .alice
        .batch(&["ok", "ok", "held", "held", "ok", "ok"])
        .await;
    let short_lease = Pace {
        lease: Duration::from_millis(500),
        ..PACE
    };
    let crashing = runner(&app, &stand_in, short_lease).await;
    let turn = tokio::spawn(async move { take_turn(&crashing).await });
    until(&app, &id, |batch| batch["request_counts"]["completed"] == 4).await;
    turn.abort();
    assert!(turn.await.unwrap_err().is_cancelled());
    stand_in.let_go();

    // Its turn is still held, until the lease runs out.
    let stop = CancellationToken::new();
    let other = runner(&app, &stand_in, PACE).await;
    let running = tokio::spawn(other.run(stop.clone()));
    let done = until(&app, &id, |batch| batch["status"] == "completed").await;
    stop.cancel();
    running.await.unwrap();
    let lines = app.alice.lines(&done, "output_file_id").await;
    let all: Vec<String> = (1..=6).map(|n| format!("request-{n}")).collect();
    assert_eq!(ids(&lines), all);
    assert_eq!(done["request_counts"]["completed"], 6);
    // The two that were under way were asked again, the other four were not.
    assert_eq!(stand_in.n_asked(), 8);
    assert_eq!(done["usage"]["total_tokens"], 6 * 12);
}

#[tokio::test]
async fn two_loops_answer_each_line_once() {
    let (app, stand_in) = start().await;
    let mut batches = Vec::new();
    for _ in 0..3 {
        batches.push(app.alice.batch(&["ok"; 20]).await);
    }
    let stop = CancellationToken::new();
    let mut loops = Vec::new();
    for _ in 0..2 {
        let runner = runner(&app, &stand_in, PACE).await;
        loops.push(tokio::spawn(runner.run(stop.clone())));
    }
    for id in &batches {
        let done = until(&app, id, |batch| batch["status"] == "completed").await;
        let lines = app.alice.lines(&done, "output_file_id").await;
        let all: Vec<String> = (1..=20).map(|n| format!("request-{n}")).collect();
        assert_eq!(ids(&lines), all);
    }
    stop.cancel();
    for each in loops {
        each.await.unwrap();
    }
    assert_eq!(stand_in.n_asked(), 60);
    assert!(stand_in.most_at_once() <= 4, "{}", stand_in.most_at_once());
}

#[tokio::test]
async fn a_loop_that_is_stopped_hands_its_turn_back() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["ok", "held"]).await;
    let stop = CancellationToken::new();
    let first = runner(&app, &stand_in, PACE).await;
    let running = tokio::spawn(first.run(stop.clone()));
    until(&app, &id, |batch| batch["request_counts"]["completed"] == 1).await;
    stop.cancel();
    running.await.unwrap();
    stand_in.let_go();
    assert!(take_turn(&runner(&app, &stand_in, PACE).await).await);
    let done = app.alice.found_batch(&id).await;
    assert_eq!(done["status"], "completed");
}

#[tokio::test]
async fn the_apis_own_login_takes_no_turns() {
    let (app, stand_in) = start().await;
    let store = Store::connect(&app.database.url_as(store::migrate::API_LOGIN))
        .await
        .unwrap();
    let runner = Runner::new(
        store,
        app.buckets.clone(),
        Clock::system(),
        InferenceClient::new(&stand_in.url, "internal".to_owned()).unwrap(),
        Throttle::new(Clock::system(), 1),
        PACE,
    );
    let refused = runner.take_turn(&CancellationToken::new()).await;
    assert!(matches!(refused, Err(TurnError::Store(_))), "{refused:?}");
}

/// Everything that alice's endpoints are to be told, of every kind of end that a batch can have.
async fn told(app: &TestApp) -> Vec<(String, String)> {
    let mut tx = app.worker_store().await.worker_tx().await.unwrap();
    let due = delivery::take(&mut tx, 10, Duration::from_mins(1))
        .await
        .unwrap();
    let told = due
        .into_iter()
        .map(|told| (told.event_type, told.object_id));
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    told
}

async fn hear_of_every_end(app: &TestApp) {
    let ends = [
        "batch.cancelled",
        "batch.completed",
        "batch.expired",
        "batch.failed",
    ];
    let hook = json!({"name": "ours", "url": "http://127.0.0.1:9/", "event_types": ends});
    app.alice.post("/v1/webhook_endpoints", &hook).await.ok();
}

fn event(event_type: &str, batch: &str) -> (String, String) {
    (event_type.to_owned(), batch.to_owned())
}

#[tokio::test]
async fn the_end_of_a_batch_is_told_once() {
    let (app, stand_in) = start().await;
    hear_of_every_end(&app).await;
    let completed = app.alice.batch(&["ok"]).await;
    let runner = runner(&app, &stand_in, PACE).await;
    while take_turn(&runner).await {}
    let cancelled = app.alice.batch(&["ok"]).await;
    for _ in 0..2 {
        app.alice.cancel_batch(&cancelled).await;
    }
    while take_turn(&runner).await {}
    let expected = [
        event("batch.cancelled", &cancelled),
        event("batch.completed", &completed),
    ];
    assert_eq!(told(&app).await, expected);
}

#[tokio::test]
async fn a_batch_that_failed_or_ran_out_of_time_is_told_of_too() {
    let (app, stand_in) = start().await;
    hear_of_every_end(&app).await;
    let short = Pace {
        turn: Duration::from_millis(200),
        ..PACE
    };
    let runner = runner(&app, &stand_in, short).await;
    let file = app.alice.batch_input("no JSON\n").await;
    let failed = app.alice.post("/v1/batches", &request(&file)).await.ok();
    while take_turn(&runner).await {}
    let expired = app.alice.batch(&["away"]).await;
    assert!(take_turn(&runner).await);
    app.clock.advance(Duration::from_hours(24));
    while take_turn(&runner).await {}
    let failed = failed["id"].as_str().unwrap();
    assert_eq!(app.alice.found_batch(failed).await["status"], "failed");
    let expected = [
        event("batch.expired", &expired),
        event("batch.failed", failed),
    ];
    assert_eq!(told(&app).await, expected);
}

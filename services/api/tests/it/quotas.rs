//! Limits as clients meet them: refusals that say what to do, and headers that say where a project stands.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use store::queue;
use store::quotas::{self, Quotas};
use tokio::net::TcpListener;

use crate::support::{ANY_WORKER, Answer, Form, ROWS, TestApp};

async fn limit(app: &TestApp, limits: Value) {
    let path = format!(
        "/v1/organization/projects/{}/rate_limits",
        app.alice_project
    );
    let set = app
        .admin
        .post(&format!("{path}/rl-project"), &limits)
        .await
        .ok();
    let listed = app.admin.get(&path).await.ok();
    assert_eq!(listed["data"], json!([set]));
    // Limits per minute are read again after five seconds.
    app.clock.advance(Duration::from_secs(5));
}

fn standing<'a>(answer: &'a Answer, what: &str) -> [&'a str; 3] {
    ["limit", "remaining", "reset"].map(|part| answer.header(&format!("x-ratelimit-{part}-{what}")))
}

#[tokio::test]
async fn without_limits_there_are_no_headers() {
    let app = TestApp::start().await;
    let answer = app.alice.get("/v1/models").await;
    assert_eq!(standing(&answer, "requests"), ["", "", ""]);
    assert_eq!(standing(&answer, "tokens"), ["", "", ""]);
}

#[tokio::test]
async fn requests_are_counted_and_come_back_with_time() {
    let app = TestApp::start().await;
    limit(&app, json!({"max_requests_per_1_minute": 3})).await;
    for (remaining, reset) in [("2", "20s"), ("1", "40s"), ("0", "1m0s")] {
        let answer = app.alice.get("/v1/models").await;
        assert_eq!(answer.status, 200);
        assert_eq!(standing(&answer, "requests"), ["3", remaining, reset]);
    }
    let refused = app.alice.get("/v1/models").await;
    insta::assert_snapshot!(refused.text, @r#"{"error":{"message":"Rate limit reached: this project may have 3 requests a minute. Try again in 20.000 s.","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}"#);
    assert_eq!(refused.status, 429);
    assert_eq!(
        (
            refused.header("retry-after"),
            refused.header("retry-after-ms")
        ),
        ("20", "20000")
    );
    assert_eq!(standing(&refused, "requests"), ["3", "0", "1m0s"]);
    // Another project, and what is no project's.
    assert_eq!(app.bob.get("/v1/models").await.status, 200);
    assert_eq!(app.admin.get("/v1/organization/projects").await.status, 200);
    app.clock.advance(Duration::from_millis(19_999));
    assert_eq!(app.alice.get("/v1/models").await.status, 429);
    app.clock.advance(Duration::from_millis(1));
    assert_eq!(app.alice.get("/v1/models").await.status, 200);
    limit(&app, json!({"max_requests_per_1_minute": null})).await;
    let free = app.alice.get("/v1/models").await;
    assert_eq!(
        (free.status, standing(&free, "requests")),
        (200, ["", "", ""])
    );
}

#[tokio::test]
async fn a_job_beyond_the_queue_s_limit_is_told_the_way_out() {
    let app = TestApp::start().await;
    limit(&app, json!({"attune": {"max_queued_jobs": 1}})).await;
    let job = app.alice.job(json!({})).await;
    let body = json!({"model": "tiny", "training_file": job["training_file"]});
    let refused = app.alice.post("/v1/fine_tuning/jobs", &body).await;
    insta::assert_snapshot!(refused.text, @r#"{"error":{"message":"This project may have 1 jobs waiting (max_queued_jobs), and 1 wait already. Try again when some of them have started, cancel some, or ask your administrator for more.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#);
    assert_eq!(
        (refused.status, refused.header("x-should-retry")),
        (429, "false")
    );
    // Nothing of it is left, and what makes room makes room.
    let jobs = app.alice.get("/v1/fine_tuning/jobs").await.ok();
    assert_eq!(jobs["data"].as_array().unwrap().len(), 1);
    let cancel = format!(
        "/v1/fine_tuning/jobs/{}/cancel",
        job["id"].as_str().unwrap()
    );
    app.alice.post_text(&cancel, "").await.ok();
    app.alice.post("/v1/fine_tuning/jobs", &body).await.ok();
}

#[tokio::test]
async fn jobs_set_aside_come_back_into_the_queue_only_as_places_are_free() {
    let app = TestApp::start().await;
    limit(&app, json!({"attune": {"max_queued_jobs": 1}})).await;
    let path = |job: &Value, verb| {
        let id = job["id"].as_str().unwrap();
        format!("/v1/fine_tuning/jobs/{id}/{verb}")
    };
    let mut paused = Vec::new();
    for _ in 0..3 {
        let job = app.alice.job(json!({})).await;
        app.alice.post_text(&path(&job, "pause"), "").await.ok();
        paused.push(job);
    }
    let resume = async |job| app.alice.post_text(&path(job, "resume"), "").await;
    assert_eq!(resume(&paused[0]).await.ok()["status"], "queued");
    let refused = resume(&paused[1]).await;
    assert_eq!(
        refused.refusal(),
        (429, None, Some("insufficient_quota".to_owned()))
    );
    assert!(refused.text.contains("max_queued_jobs"), "{}", refused.text);
    let still = format!("/v1/fine_tuning/jobs/{}", paused[1]["id"].as_str().unwrap());
    let still = app.alice.get(&still).await.ok();
    assert_eq!(still["status"], "paused");
    // Asking again for what is so already takes no place.
    resume(&paused[0]).await.ok();
    app.claim(&app.worker_store().await).await;
    assert_eq!(resume(&paused[1]).await.ok()["status"], "queued");
    assert_eq!(resume(&paused[2]).await.status, 429);
    // A worker that is at a job has not handed it back: resumed at once, it still needs its place.
    app.alice
        .post_text(&path(&paused[0], "pause"), "")
        .await
        .ok();
    assert_eq!(resume(&paused[0]).await.status, 429);
}

#[tokio::test]
async fn administrators_lower_the_operators_limits_and_cannot_lift_them() {
    let app = TestApp::start().await;
    let operators = Quotas {
        max_running_jobs: Some(2),
        max_requests_per_minute: Some(100),
        ..Quotas::default()
    };
    let mut tx = app.database.store().operator_tx().await.unwrap();
    quotas::set_ceiling(&mut tx, app.alice_org, app.alice_project, &operators)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let path = format!(
        "/v1/organization/projects/{}/rate_limits/rl-project",
        app.alice_project
    );
    let mut in_force = Vec::new();
    for asked in [
        json!({}),
        json!({"max_requests_per_1_minute": 7, "attune": {"max_running_jobs": 1}}),
        json!({"max_requests_per_1_minute": null, "attune": {"max_running_jobs": null}}),
    ] {
        let set = app.admin.post(&path, &asked).await.ok();
        in_force.push((
            set["max_requests_per_1_minute"].as_u64().unwrap(),
            set["attune"]["max_running_jobs"].as_u64().unwrap(),
        ));
    }
    assert_eq!(in_force, [(100, 2), (7, 1), (100, 2)]);
    for (asked, param) in [
        (
            json!({"max_requests_per_1_minute": 101}),
            "max_requests_per_1_minute",
        ),
        (
            json!({"attune": {"max_running_jobs": 3}}),
            "attune.max_running_jobs",
        ),
    ] {
        let refused = app.admin.post(&path, &asked).await;
        let code = "above_operator_limit".to_owned();
        assert_eq!(
            refused.refusal(),
            (400, Some(param.to_owned()), Some(code)),
            "{asked}"
        );
    }
    // Of jobs at workers, claims take as many as the administrator allows.
    limit(&app, json!({"attune": {"max_running_jobs": 1}})).await;
    for _ in 0..2 {
        app.alice.job(json!({})).await;
    }
    let worker = app.worker_store().await;
    app.claim(&worker).await;
    let mut tx = worker.worker_tx().await.unwrap();
    let lease_for = Duration::from_mins(1);
    let second = queue::claim(&mut tx, "test", ANY_WORKER, lease_for).await;
    assert_eq!(second.unwrap(), None);
}

#[tokio::test]
async fn a_job_that_would_train_too_much_today_is_refused() {
    let app = TestApp::start().await;
    let one_epoch = (ROWS.len() / 4) as u64;
    limit(
        &app,
        json!({"attune": {"max_trained_tokens_per_day": one_epoch * 3}}),
    )
    .await;
    let epochs = |n: u64| json!({"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": n}}}});
    app.alice.job(epochs(2)).await;
    let mut body = epochs(2);
    body["model"] = "tiny".into();
    body["training_file"] = app.alice.training_file().await.into();
    let refused = app.alice.post("/v1/fine_tuning/jobs", &body).await;
    assert_eq!(
        refused.refusal(),
        (429, None, Some("insufficient_quota".to_owned()))
    );
    assert!(
        refused.text.contains("max_trained_tokens_per_day"),
        "{}",
        refused.text
    );
    let now = domain::Clock::from(app.clock.clone()).now();
    let midnight = now.replace_time(time::Time::MIDNIGHT) + time::Duration::DAY;
    let secs = (midnight - now).whole_seconds().to_string();
    assert_eq!(
        (
            refused.header("x-should-retry"),
            refused.header("retry-after")
        ),
        ("false", secs.as_str())
    );
    app.alice.job(epochs(1)).await;
}

#[tokio::test]
async fn files_beyond_the_limit_are_refused_and_leave_nothing() {
    let app = TestApp::start().await;
    let size = ROWS.len();
    limit(&app, json!({"attune": {"max_storage_bytes": size + 10}})).await;
    let first = app.alice.training_file().await;
    // While it streams: nothing declared how long the file is.
    let refused = app.alice.upload(Form::of("fine-tune", ROWS)).await;
    assert_eq!(
        refused.refusal(),
        (429, None, Some("insufficient_quota".to_owned()))
    );
    assert!(
        refused.text.contains("max_storage_bytes"),
        "{}",
        refused.text
    );
    // Before it is read: the whole body is far too long.
    let refused = app
        .alice
        .upload(Form::of("user_data", vec![b'x'; 70_000]))
        .await;
    assert!(
        refused.text.contains("max_storage_bytes"),
        "{}",
        refused.text
    );
    assert_eq!(app.object_keys().await.len(), 1);
    app.alice.delete(&format!("/v1/files/{first}")).await.ok();
    app.alice.training_file().await;
}

#[tokio::test]
async fn a_project_full_of_models_begins_no_job() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let model = app.finish_next_job().await.model_name;
    let file = app.alice.training_file().await;
    let mut tx = app
        .database
        .store()
        .tenant_tx(app.alice_project)
        .await
        .unwrap();
    let used = quotas::storage_bytes(&mut tx).await.unwrap();
    drop(tx);
    // Two files to train on, the job's results, its checkpoint and its model.
    assert_eq!(used, 2 * ROWS.len() as u64 + 3 * 4);
    limit(&app, json!({"attune": {"max_storage_bytes": used}})).await;
    let job = json!({"model": "tiny", "training_file": file});
    let refused = app.alice.post("/v1/fine_tuning/jobs", &job).await;
    let said = format!(
        "stores {used}, so that there is no room for what a job makes. Delete files and models"
    );
    assert!(refused.text.contains(&said), "{}", refused.text);
    assert_eq!(
        refused.refusal(),
        (429, None, Some("insufficient_quota".to_owned()))
    );
    app.alice.delete(&format!("/v1/models/{model}")).await.ok();
    app.alice.post("/v1/fine_tuning/jobs", &job).await.ok();
}

#[tokio::test]
async fn uploads_at_once_fill_the_quota_and_no_more() {
    let app = TestApp::start().await;
    limit(
        &app,
        json!({"attune": {"max_storage_bytes": ROWS.len() * 3 + 10}}),
    )
    .await;
    let uploads = (0..12).map(|_| {
        let alice = app.alice.clone();
        tokio::spawn(async move { alice.upload(Form::of("fine-tune", ROWS)).await.status })
    });
    let mut stored = 0;
    for upload in uploads.collect::<Vec<_>>() {
        match upload.await.unwrap() {
            200 => stored += 1,
            status => assert_eq!(status, 429),
        }
    }
    assert_eq!((stored, app.object_keys().await.len()), (3, 3));
}

/// Answers of 30 tokens, whole or as a stream of two events, by the name of the model.
async fn stand_in(Json(request): Json<Value>) -> Response {
    let usage = json!({"usage": {"total_tokens": 30}, "choices": []});
    match request["model"].as_str().unwrap() {
        "stream" => {
            let event = "data: {\"choices\":[{}]}\n\n".to_owned();
            let events = [
                event.clone(),
                event,
                format!("data: {usage}\n\n"),
                "data: [DONE]\n\n".to_owned(),
            ];
            let events = events.map(|event| Ok::<_, Infallible>(Bytes::from(event)));
            let body = Body::from_stream(futures::stream::iter(events));
            ([("content-type", "text/event-stream")], body).into_response()
        }
        "missing" => (StatusCode::NOT_FOUND, Json(json!({"error": {}}))).into_response(),
        _ => Json(usage).into_response(),
    }
}

#[tokio::test]
async fn tokens_are_held_at_first_and_settled_by_what_it_took() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = axum::Router::new().route("/v1/chat/completions", post(stand_in));
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let app = TestApp::start_with_inference(&url).await;
    limit(&app, json!({"max_tokens_per_1_minute": 120})).await;
    let chat = |model: &str, max_tokens: u64| {
        let request =
            json!({"model": model, "messages": [{"content": "hi"}], "max_tokens": max_tokens});
        let alice = app.alice.clone();
        async move { alice.post("/v1/chat/completions", &request).await }
    };
    let remaining =
        || async { standing(&app.alice.get("/v1/models").await, "tokens")[1].to_owned() };

    // A quarter of the prompt's bytes, and as many as it may answer.
    let answer = chat("whole", 100).await;
    let held = 100 + json!([{"content": "hi"}]).to_string().len() / 4;
    assert_eq!(standing(&answer, "tokens")[1], (120 - held).to_string());
    assert_eq!(remaining().await, "90");
    assert_eq!(chat("stream", 10).await.status, 200);
    assert_eq!(remaining().await, "60");
    assert_eq!(chat("missing", 10).await.status, 404);
    assert_eq!(remaining().await, "60");
    let refused = chat("whole", 100).await;
    assert_eq!(
        refused.refusal(),
        (429, None, Some("rate_limit_exceeded".to_owned()))
    );
    assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 30);
    let never = chat("whole", 500).await;
    assert_eq!(
        (never.status, never.header("x-should-retry")),
        (429, "false")
    );
    app.clock.advance(Duration::from_secs(30));
    assert_eq!(chat("whole", 100).await.status, 200);
}

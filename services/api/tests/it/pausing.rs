//! Jobs that are set aside and taken up again, and what they need of a worker.

use std::time::Duration;

use domain::{DeviceKind, WorkerKind};
use serde_json::{Value, json};
use store::{lease, projects, queue, workers};

use crate::support::TestApp;

const JOBS: &str = "/v1/fine_tuning/jobs";

fn path(job: &Value, verb: &str) -> String {
    format!("{JOBS}/{}/{verb}", job["id"].as_str().unwrap())
}

async fn messages(app: &TestApp, job: &Value) -> Vec<String> {
    let events = app.alice.get(&path(job, "events")).await.ok();
    let events = events["data"].as_array().unwrap().iter();
    events
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect()
}

/// The status of the job's own page and of its line in the list, as a client with this header reads them.
async fn statuses(app: &TestApp, job: &Value, compat: Option<&str>) -> [Value; 2] {
    let one = format!("{JOBS}/{}", job["id"].as_str().unwrap());
    let mut shown = Vec::new();
    for path in [one.as_str(), JOBS] {
        let mut request = app.alice.request(reqwest::Method::GET, path);
        if let Some(words) = compat {
            request = request.header("attune-compat", words);
        }
        shown.push(app.alice.send(request).await.ok());
    }
    [
        shown[0]["status"].clone(),
        shown[1]["data"][0]["status"].clone(),
    ]
}

#[tokio::test]
async fn pausing_and_resuming_take_an_empty_body_and_may_be_repeated() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    for _ in 0..2 {
        let paused = app.alice.post_text(&path(&job, "pause"), "").await.ok();
        assert_eq!(paused["status"], "paused");
    }
    for _ in 0..2 {
        let resumed = app.alice.post_text(&path(&job, "resume"), "").await.ok();
        assert_eq!(resumed["status"], "queued");
    }
    let said = messages(&app, &job).await;
    assert_eq!(
        said[..2],
        ["Fine-tuning job resumed", "Fine-tuning job paused"]
    );
    assert_eq!(said.len(), 4, "one event for two calls: {said:?}");
    let claimed = app.claim(&app.worker_store().await).await;
    assert_eq!(claimed.job.id.to_string(), job["id"].as_str().unwrap());
}

#[tokio::test]
async fn a_finished_job_is_neither_paused_nor_resumed() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    app.finish_next_job().await;
    for verb in ["pause", "resume"] {
        let refused = app.alice.post_text(&path(&job, verb), "").await;
        assert_eq!(
            refused.refusal(),
            (400, None, Some("job_is_final".to_owned()))
        );
    }
}

#[tokio::test]
async fn a_paused_job_can_be_cancelled() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    app.alice.post_text(&path(&job, "pause"), "").await.ok();
    let cancelled = app.alice.post_text(&path(&job, "cancel"), "").await.ok();
    assert_eq!(cancelled["status"], "cancelled");
    let refused = app.alice.post_text(&path(&job, "resume"), "").await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn a_running_job_is_shown_as_paused_before_its_worker_has_handed_it_back() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    let worker = app.worker_store().await;
    let claimed = app.claim(&worker).await;
    app.alice.post_text(&path(&job, "pause"), "").await.ok();
    assert_eq!(statuses(&app, &job, None).await, ["paused", "paused"]);

    let mut tx = worker.worker_tx().await.unwrap();
    let wish = queue::wish(&mut tx, &claimed.lease).await.unwrap();
    assert_eq!(wish, queue::Wish::Pause);
    tx.commit().await.unwrap();
    let mut tx = worker.tenant_tx(app.alice_project).await.unwrap();
    lease::release(&mut tx, &claimed.lease, Duration::ZERO)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(statuses(&app, &job, None).await, ["paused", "paused"]);
}

#[tokio::test]
async fn strict_clients_are_shown_openais_own_words() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    app.alice.post_text(&path(&job, "pause"), "").await.ok();
    for (compat, word) in [
        (None, "paused"),
        (Some("else"), "paused"),
        (Some("openai"), "queued"),
    ] {
        assert_eq!(statuses(&app, &job, compat).await, [word, word]);
    }
    let request = app
        .alice
        .request(reqwest::Method::POST, &path(&job, "pause"))
        .header("attune-compat", "openai");
    assert_eq!(app.alice.send(request).await.ok()["status"], "queued");
}

#[tokio::test]
async fn a_project_can_have_openais_own_words_for_all_its_requests() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    app.alice.post_text(&path(&job, "pause"), "").await.ok();
    let mut tx = app.database.store().operator_tx().await.unwrap();
    projects::set_speaks_openai(&mut tx, app.alice_project, true)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(statuses(&app, &job, None).await, ["queued", "queued"]);
}

#[tokio::test]
async fn a_job_that_no_worker_can_take_says_so_and_waits() {
    let app = TestApp::start().await;
    let store = app.worker_store().await;
    let small = WorkerKind {
        device: DeviceKind::Cpu,
        memory_bytes: 1 << 20,
    };
    let mut tx = store.worker_tx().await.unwrap();
    workers::announce(&mut tx, &workers::Worker::new("small", small))
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let job = app.alice.job(json!({})).await;
    let said = messages(&app, &job).await;
    assert!(
        said[0].starts_with("No worker of this installation can take the job now"),
        "{said:?}"
    );
    let mut tx = store.worker_tx().await.unwrap();
    let claimed = queue::claim(&mut tx, "small", small, Duration::from_mins(1)).await;
    assert_eq!(claimed.unwrap(), None);
    tx.commit().await.unwrap();
    app.claim(&store).await;
}

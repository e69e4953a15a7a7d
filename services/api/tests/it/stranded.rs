//! Jobs that wait in vain are told so once, and once when that is over.

use std::time::Duration;

use api::stranded::{Teller, Told};
use domain::job::JobError;
use domain::{Clock, DeviceKind, WorkerKind};
use serde_json::{Value, json};
use store::workers::{self, Worker};
use store::{Store, lease, queue};

use crate::support::TestApp;

const NOBODY: &str = "No worker of this installation can take the job now: it needs ";
const FOUND: &str = "A worker that can take the job is there";
const NOTHING: Told = Told {
    stranded: 0,
    found: 0,
};
const STRANDED: Told = Told {
    stranded: 1,
    found: 0,
};

const SMALL: WorkerKind = WorkerKind {
    device: DeviceKind::Cpu,
    memory_bytes: 1 << 20,
};
const LARGE: WorkerKind = WorkerKind {
    device: DeviceKind::Cpu,
    memory_bytes: 1 << 40,
};
const GPU: WorkerKind = WorkerKind {
    device: DeviceKind::Cuda,
    memory_bytes: 1 << 40,
};

async fn announce(store: &Store, kind: WorkerKind) -> Worker {
    let worker = Worker::new("w", kind);
    let mut tx = store.worker_tx().await.unwrap();
    workers::announce(&mut tx, &worker).await.unwrap();
    tx.commit().await.unwrap();
    worker
}

async fn leave(store: &Store, worker: &Worker) {
    let mut tx = store.worker_tx().await.unwrap();
    workers::leave(&mut tx, worker).await.unwrap();
    tx.commit().await.unwrap();
}

/// Whether a worker of this kind is given a job.
async fn claims(store: &Store, kind: WorkerKind) -> bool {
    let mut tx = store.worker_tx().await.unwrap();
    let claimed = queue::claim(&mut tx, "w", kind, Duration::from_mins(1)).await;
    tx.commit().await.unwrap();
    claimed.unwrap().is_some()
}

/// Every job has waited for longer than it takes to be told.
async fn jobs_wait(app: &TestApp) {
    let statement = "DO $$ BEGIN SET LOCAL session_replication_role = replica;
         UPDATE jobs SET updated_at = updated_at - interval '90 s'; END $$";
    app.database.run(statement).await.unwrap();
}

/// Every worker was last heard of too long ago.
async fn workers_are_silent(app: &TestApp) {
    let statement = "DO $$ BEGIN SET LOCAL session_replication_role = replica;
         UPDATE workers SET updated_at = updated_at - interval '3 min'; END $$";
    app.database.run(statement).await.unwrap();
}

/// What the job said, oldest first, after what every job says when it is made.
async fn said(app: &TestApp, job: &Value) -> Vec<String> {
    let path = format!(
        "/v1/fine_tuning/jobs/{}/events?limit=100",
        job["id"].as_str().unwrap()
    );
    let events = app.alice.get(&path).await.ok();
    let events = events["data"].as_array().unwrap().iter().rev().skip(2);
    events
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_job_is_told_once_that_nobody_can_take_it_and_once_that_somebody_can() {
    let app = TestApp::start().await;
    let store = app.worker_store().await;
    let teller = Teller::new(store.clone());
    let job = app.alice.job(json!({})).await;
    assert_eq!(teller.look().await.unwrap(), NOTHING, "it is too soon");
    jobs_wait(&app).await;
    assert_eq!(teller.look().await.unwrap(), STRANDED);
    assert_eq!(teller.look().await.unwrap(), NOTHING, "it was told");
    announce(&store, SMALL).await;
    assert_eq!(teller.look().await.unwrap(), NOTHING);
    let worker = announce(&store, LARGE).await;
    let found = Told {
        stranded: 0,
        found: 1,
    };
    assert_eq!(teller.look().await.unwrap(), found);
    assert_eq!(teller.look().await.unwrap(), NOTHING);

    // It goes, and nobody takes its place.
    leave(&store, &worker).await;
    jobs_wait(&app).await;
    assert_eq!(teller.look().await.unwrap(), NOTHING, "another may come");
    workers_are_silent(&app).await;
    assert_eq!(teller.look().await.unwrap(), STRANDED);
    let said = said(&app, &job).await;
    assert!(said[0].starts_with(NOBODY), "{said:?}");
    assert_eq!(said[1], FOUND);
    assert_eq!((said.len(), &said[2]), (3, &said[0]));
}

#[tokio::test]
async fn a_job_that_asks_for_a_gpu_is_taken_by_no_other_worker() {
    let app = TestApp::start().await;
    let store = app.worker_store().await;
    announce(&store, LARGE).await;
    let job = app.alice.job(json!({"attune": {"device": "cuda"}})).await;
    assert_eq!(job["attune"]["config"]["device"], "cuda");
    let nobody = format!("{NOBODY}a cuda worker with ");
    assert!(said(&app, &job).await[0].starts_with(&nobody));
    jobs_wait(&app).await;
    let teller = Teller::new(store.clone());
    assert_eq!(teller.look().await.unwrap(), NOTHING, "it knows already");
    assert!(!claims(&store, LARGE).await);

    assert!(claims(&store, GPU).await);
    assert_eq!(said(&app, &job).await[1..], [FOUND]);
    assert_eq!(teller.look().await.unwrap(), NOTHING);
}

#[tokio::test]
async fn who_does_not_wait_is_told_nothing() {
    let app = TestApp::start().await;
    let store = app.worker_store().await;
    app.alice.job(json!({})).await;
    assert!(claims(&store, LARGE).await);
    for verb in ["pause", "cancel"] {
        let job = app.alice.job(json!({})).await;
        let path = format!(
            "/v1/fine_tuning/jobs/{}/{verb}",
            job["id"].as_str().unwrap()
        );
        app.alice.post_text(&path, "").await.ok();
    }
    jobs_wait(&app).await;
    let teller = Teller::new(store);
    assert_eq!(teller.look().await.unwrap(), NOTHING);
    app.bob.job(json!({})).await;
    jobs_wait(&app).await;
    assert_eq!(teller.look().await.unwrap(), STRANDED);
}

/// What `/metrics` says that the queue is like.
async fn gauges(app: &TestApp) -> Vec<String> {
    let metrics = app.anonymous.get("/metrics").await.text;
    assert!(!metrics.contains("proj_"), "{metrics}");
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("attune_jobs_"));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn an_operator_is_told_how_the_queue_does() {
    let app = TestApp::start().await;
    let store = app.worker_store().await;
    let teller = Teller::new(store.clone());
    for _ in 0..3 {
        app.alice.job(json!({})).await;
    }
    app.bob.job(json!({})).await;
    let claimed = [app.claim(&store).await, app.claim(&store).await];
    let back =
        "UPDATE jobs SET next_attempt_at = now() - interval '1000 s' WHERE lease_token IS NULL";
    app.database.run(back).await.unwrap();
    teller.look().await.unwrap();
    let told = gauges(&app).await;
    for line in [
        "attune_jobs_waiting 2",
        "attune_jobs_leased 2",
        "attune_jobs_lost 0",
    ] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
    }
    let longest = told
        .iter()
        .find_map(|line| line.strip_prefix("attune_jobs_longest_wait_seconds "));
    let longest: f64 = longest.unwrap().parse().unwrap();
    assert!((1000.0..1600.0).contains(&longest), "{longest}");

    // One fails, and the worker of the other is not heard of again.
    let [fails, is_lost] = claimed;
    let mut tx = store.tenant_tx(fails.lease.project_id).await.unwrap();
    let error = JobError {
        code: "non_finite_loss".to_owned(),
        message: "the loss is not finite".to_owned(),
        param: None,
    };
    let failed = fails.job.fail(error, Clock::system().now()).unwrap();
    lease::save(&mut tx, &fails.lease, &failed).await.unwrap();
    tx.commit().await.unwrap();
    let lost = "UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE id = $1::uuid";
    let id = is_lost.job.id.0.to_string();
    app.database.run_with(lost, &id).await.unwrap();
    teller.look().await.unwrap();
    let told = gauges(&app).await;
    let ended = |n| format!(r#"attune_jobs_ended{{status="failed",code="non_finite_loss"}} {n}"#);
    for line in [&ended(1), "attune_jobs_lost 1"] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
    }

    // An hour later it is no news.
    let later =
        "UPDATE jobs SET finished_at = finished_at - interval '1 h' WHERE finished_at IS NOT NULL";
    app.database.run(later).await.unwrap();
    teller.look().await.unwrap();
    let told = gauges(&app).await;
    assert!(told.contains(&ended(0)), "{told:?}");
}

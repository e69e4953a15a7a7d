//! Reports to Weights & Biases, to a server that speaks the two requests of its own client.

mod failures;
mod recorder;

use api::outbound::target::{Lookup, Policy};
use api::wandb::{Client, Reporter};
use domain::{Clock, ProjectId};
use serde_json::{Value, json};
use store::metrics::{self, StepMetrics};
use store::queue::Claimed;
use store::wandb::accounts::{self, Account};
use store::{Store, lease};
use testkit::database::keyring;

use self::recorder::{OWNER, Recorder};
use crate::support::{OPEN, START, TestApp};

const JOBS: &str = "/v1/fine_tuning/jobs";
const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

/// A job that reports to a project of its account's owner.
fn reporting() -> Value {
    json!({"integrations": [{"type": "wandb", "wandb": {"project": "support"}}]})
}

fn id(job: &Value) -> &str {
    job["id"].as_str().unwrap()
}

/// Where the recorder has the run of [`reporting`].
fn path(job: &Value) -> String {
    format!("{OWNER}/support/{}", id(job))
}

async fn set_account(app: &TestApp, project_id: ProjectId, base_url: &str, key: &str) {
    let account = Account {
        base_url: base_url.to_owned(),
        entity: None,
    };
    let mut tx = app.database.store().operator_tx().await.unwrap();
    accounts::set(&mut tx, &keyring(), project_id, &account, key, START)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// An app whose project of Alice's reports to the recorder.
async fn with_recorder() -> (TestApp, Recorder) {
    let (app, recorder) = (TestApp::start().await, Recorder::start().await);
    set_account(&app, app.alice_project, &recorder.url, KEY).await;
    (app, recorder)
}

async fn reporter(app: &TestApp, policy: Policy) -> Reporter {
    let client = Client::new(policy, Lookup::system()).unwrap();
    let clock = Clock::from(app.clock.clone());
    Reporter::new(app.worker_store().await, keyring(), client, clock)
}

/// One round; says how many reports there were.
async fn report(app: &TestApp) -> usize {
    reporter(app, OPEN).await.report_due().await.unwrap()
}

/// Every pause is over.
async fn time_passes(app: &TestApp) {
    let statement = "UPDATE wandb_runs SET wakes_at = now() WHERE wakes_at < 'infinity'";
    app.database.run(statement).await.unwrap();
}

/// A worker takes the job that waits longest and begins to train.
async fn start_next(app: &TestApp, worker: &Store) -> Claimed {
    let mut claimed = app.claim(worker).await;
    claimed.job = claimed.job.start().unwrap();
    let mut tx = worker.tenant_tx(claimed.lease.project_id).await.unwrap();
    lease::save(&mut tx, &claimed.lease, &claimed.job)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    claimed
}

/// The worker stores the numbers of these steps; those of every second are measured on the validation file, too.
async fn train(worker: &Store, claimed: &Claimed, steps: std::ops::RangeInclusive<u32>) {
    let steps: Vec<StepMetrics> = steps
        .map(|step| StepMetrics {
            step: step.into(),
            train_loss: 1.0 / f64::from(step),
            train_accuracy: 0.5,
            valid_loss: (step % 2 == 0).then_some(2.0),
            valid_accuracy: (step % 2 == 0).then_some(0.25),
            learning_rate: 1e-4,
            grad_norm: f64::NAN,
            n_tokens: 1_000,
            n_loss_tokens: 500,
            step_ms: 500.0,
        })
        .collect();
    let mut tx = worker.tenant_tx(claimed.lease.project_id).await.unwrap();
    metrics::record(&mut tx, &claimed.lease, &steps)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// What the job said of Weights & Biases, oldest first, each with its level.
async fn said(app: &TestApp, job: &Value) -> Vec<(String, String)> {
    let events = app
        .alice
        .get(&format!("{JOBS}/{}/events?limit=100", id(job)))
        .await
        .ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let events = events["data"].as_array().unwrap().iter().rev();
    events
        .map(|event| (text(&event["level"]), text(&event["message"])))
        .filter(|(_, message)| message.contains("Weights & Biases"))
        .collect()
}

fn steps(history: &[Value]) -> Vec<u64> {
    history
        .iter()
        .map(|line| line["_step"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_project_without_an_account_is_told_who_sets_one() {
    let (app, recorder) = with_recorder().await;
    let mut body = reporting();
    body["model"] = json!("tiny");
    body["training_file"] = json!(app.bob.training_file().await);
    let answer = app.bob.post(JOBS, &body).await;
    let refusal = (
        400,
        Some("integrations".to_owned()),
        Some("wandb_not_configured".to_owned()),
    );
    assert_eq!(answer.refusal(), refusal);
    assert!(
        answer.text.contains("attune admin project wandb set"),
        "{}",
        answer.text
    );
    assert_eq!(app.bob.get(JOBS).await.ok()["data"], json!([]));
    // An estimate makes no job, so it needs no account.
    app.register_wordy().await;
    body["model"] = json!("wordy");
    app.bob.post(&format!("{JOBS}/estimate"), &body).await.ok();

    let asked = json!([{"type": "wandb", "wandb": {
        "project": "support", "name": "first", "entity": "team", "tags": ["a", "b"]}}]);
    let job = app.alice.job(json!({"integrations": asked})).await;
    assert_eq!(job["integrations"], asked);
    let shown = app.alice.get(&format!("{JOBS}/{}", id(&job))).await.ok();
    assert_eq!(shown["integrations"], asked);
    let plain = app.alice.job(reporting()).await;
    assert_eq!(
        plain["integrations"][0]["wandb"],
        json!({"project": "support", "name": null, "entity": null, "tags": []})
    );
    assert_eq!(
        (report(&app).await, recorder.n_requests()),
        (0, 0),
        "both wait"
    );
}

#[tokio::test]
async fn a_job_is_shown_from_its_first_step_to_its_end() {
    let (app, recorder) = with_recorder().await;
    recorder.accept_only(KEY);
    let job = app.alice.job(reporting()).await;
    let worker = app.worker_store().await;
    let claimed = start_next(&app, &worker).await;
    assert_eq!((report(&app).await, report(&app).await), (1, 0));
    let run = recorder.run(&path(&job));
    assert_eq!(run.made["displayName"], job["id"]);
    assert_eq!(
        run.made["tags"],
        json!([
            "attune/finetune",
            "attune/tiny",
            format!("attune/{}", id(&job))
        ])
    );
    let config: Value = serde_json::from_str(run.made["config"].as_str().unwrap()).unwrap();
    assert_eq!(config["job_id"], json!({"value": job["id"]}));
    assert_eq!(
        config["hyperparameters"],
        json!({"value": job["hyperparameters"]})
    );
    assert_eq!(config["base_model"], json!({"value": "tiny"}));
    let page = format!(
        "Weights & Biases run: {}/{OWNER}/support/runs/{}",
        recorder.url,
        id(&job)
    );
    assert_eq!(said(&app, &job).await, [("info".to_owned(), page.clone())]);

    train(&worker, &claimed, 1..=2).await;
    assert_eq!(report(&app).await, 0, "not at once");
    time_passes(&app).await;
    assert_eq!(report(&app).await, 1);
    train(&worker, &claimed, 3..=3).await;
    for _ in 0..2 {
        time_passes(&app).await;
        assert_eq!(report(&app).await, 1);
    }
    let run = recorder.run(&path(&job));
    assert_eq!(
        (steps(&run.history), &run.offsets[..]),
        (vec![1, 2, 3], &[0, 2][..])
    );
    assert_eq!((run.n_made, run.n_heartbeats, run.exit_code), (1, 2, None));
    let line = &run.history[1];
    assert_eq!(line["train_loss"], 0.5);
    assert_eq!(
        (&line["valid_loss"], &line["valid_mean_token_accuracy"]),
        (&json!(2.0), &json!(0.25))
    );
    // What was not measured, and what is no number, is left out.
    assert!(run.history[0].get("valid_loss").is_none() && line.get("grad_norm").is_none());
    assert!(line["_timestamp"].is_f64() && line["_runtime"].is_f64());

    app.alice
        .post(&format!("{JOBS}/{}/cancel", id(&job)), &json!({}))
        .await
        .ok();
    assert_eq!((report(&app).await, report(&app).await), (1, 0));
    let run = recorder.run(&path(&job));
    assert_eq!(
        (steps(&run.history), run.exit_code),
        (vec![1, 2, 3], Some(255))
    );
    assert_eq!(
        (&run.summary["_step"], &run.summary["status"]),
        (&json!(3), &json!("cancelled"))
    );
    time_passes(&app).await;
    assert_eq!(report(&app).await, 0);
    assert_eq!(said(&app, &job).await.len(), 1);
}

#[tokio::test]
async fn a_job_that_ended_before_anybody_looked_is_shown_whole() {
    let (app, recorder) = with_recorder().await;
    let asked = |name: &str, entity: Option<&str>| {
        json!({"type": "wandb", "wandb": {
            "project": "support", "name": name, "entity": entity, "tags": ["mine"]}})
    };
    let integrations = json!([
        asked("one", None),
        asked("two", None),
        asked("three", Some("team"))
    ]);
    let job = app.alice.job(json!({"integrations": integrations})).await;
    let done = app.finish_next_job().await;
    assert_eq!(report(&app).await, 3);
    for (path, name) in [
        (path(&job), "one"),
        (format!("{}-2", path(&job)), "two"),
        (format!("team/support/{}-3", id(&job)), "three"),
    ] {
        let run = recorder.run(&path);
        assert_eq!(
            (run.made["displayName"].as_str(), run.exit_code),
            (Some(name), Some(0))
        );
        assert_eq!(run.made["tags"][3], "mine");
        assert_eq!(steps(&run.history), [1]);
        assert_eq!(run.summary["fine_tuned_model"], json!(done.model_name));
        assert_eq!(
            (&run.summary["trained_tokens"], &run.summary["train_loss"]),
            (&json!(12), &json!(1.5))
        );
    }
    assert_eq!((recorder.n_runs(), said(&app, &job).await.len()), (3, 3));
    // Settings and numbers, but nothing of what was learned from.
    let received = recorder.received();
    for row in ["messages", "assistant", "\"content\":\"b\""] {
        assert!(!received.contains(row), "{row}");
    }
}

#[tokio::test]
async fn more_steps_than_one_report_takes_come_in_order() {
    let (app, recorder) = with_recorder().await;
    let job = app.alice.job(reporting()).await;
    let worker = app.worker_store().await;
    let claimed = start_next(&app, &worker).await;
    train(&worker, &claimed, 1..=1_100).await;
    let cancel = format!("{JOBS}/{}/cancel", id(&job));
    app.alice.post(&cancel, &json!({})).await.ok();
    assert_eq!(
        [report(&app).await, report(&app).await, report(&app).await],
        [1; 3]
    );
    assert_eq!(report(&app).await, 0);
    let run = recorder.run(&path(&job));
    assert_eq!(run.offsets, [0, 500, 1_000]);
    assert_eq!(steps(&run.history), (1..=1_100).collect::<Vec<_>>());
    assert_eq!(run.exit_code, Some(255));
}

#[tokio::test]
async fn the_service_reports_by_itself() {
    let (app, recorder) = with_recorder().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serving = tokio::spawn(api::serve(app.config(), listener, std::future::pending()));
    app.alice.job(reporting()).await;
    app.finish_next_job().await;
    recorder.next().await;
    serving.abort();
}

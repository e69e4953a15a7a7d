//! The whole system as processes, with real signals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::Installation;

fn rows(n: usize) -> String {
    let row = |i: usize| {
        json!({"messages": [
            {"role": "user", "content": format!("is {i} odd?")},
            {"role": "assistant", "content": if i.is_multiple_of(2) { "no" } else { "yes" }},
        ]})
    };
    let lines: Vec<String> = (0..n).map(|i| row(i).to_string()).collect();
    lines.join("\n") + "\n"
}

async fn installation_with_a_tiny_base() -> Installation {
    let installation = Installation::start().await;
    let base = TempDir::new().unwrap();
    lm::testing::write_tiny_base(base.path(), 1);
    installation.import(base.path(), "tiny");
    installation
}

async fn create_job(installation: &Installation, file: &str) -> String {
    let settings = json!({
        "n_epochs": 40, "batch_size": 4, "checkpoint_every": 7, "learning_rate": 5e-3,
        "lora": {"rank": 4, "dropout": 0.1},
    });
    create_job_with(installation, file, settings).await
}

async fn create_job_with(installation: &Installation, file: &str, settings: Value) -> String {
    let job = json!({"model": "tiny", "training_file": file, "seed": 5, "attune": settings});
    let job = installation
        .call(Method::POST, "/fine_tuning/jobs", Some(job))
        .await;
    job["id"].as_str().unwrap().to_owned()
}

fn losses(events: &[Value]) -> Vec<(u64, f64)> {
    let metrics = events.iter().filter(|event| event["type"] == "metrics");
    metrics
        .map(|event| {
            let data = &event["data"];
            (
                data["step"].as_u64().unwrap(),
                data["train_loss"].as_f64().unwrap(),
            )
        })
        .collect()
}

async fn result_file(installation: &Installation, job: &Value) -> String {
    let path = format!(
        "/files/{}/content",
        job["result_files"][0].as_str().unwrap()
    );
    installation
        .send(Method::GET, &path, None)
        .await
        .text()
        .await
        .unwrap()
}

async fn step_reached(installation: &Installation, job: &str, wanted: u64) {
    installation
        .wait_for("a step", async |this| {
            let last = losses(&this.events(job).await)
                .last()
                .map(|(step, _)| *step);
            last.filter(|step| *step >= wanted)
        })
        .await;
}

#[tokio::test]
async fn a_job_whose_worker_is_killed_ends_as_if_nothing_had_happened() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(40)).await;

    let unkilled = create_job(&installation, &file).await;
    let unkilled_job = installation.finished(&unkilled).await;
    let expected = losses(&installation.events(&unkilled).await);
    assert_eq!(expected.len(), 400);

    let killed = create_job(&installation, &file).await;
    step_reached(&installation, &killed, 20).await;
    installation.kill_service("worker");
    let killed_job = installation.finished(&killed).await;
    let events = installation.events(&killed).await;

    assert_eq!(killed_job["status"], "succeeded", "{killed_job}");
    assert!(events.iter().any(|event| {
        event["message"]
            .as_str()
            .unwrap()
            .starts_with("Resumed from step ")
    }));
    assert_eq!(
        losses(&events),
        expected,
        "no step is missing, repeated or different"
    );
    assert_eq!(
        result_file(&installation, &killed_job).await,
        result_file(&installation, &unkilled_job).await
    );
}

#[tokio::test]
async fn killing_everything_and_starting_again_loses_nothing() {
    let mut installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(40)).await;
    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 10).await;

    installation.end(Signal::KILL);
    installation.up().await;

    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let steps: Vec<u64> = losses(&installation.events(&job).await)
        .iter()
        .map(|(step, _)| *step)
        .collect();
    assert_eq!(steps, (1..=400).collect::<Vec<_>>());
    let model = ended["fine_tuned_model"].as_str().unwrap();
    let chat = json!({
        "model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "is 3 odd?"}],
    });
    let answer = installation
        .call(Method::POST, "/chat/completions", Some(chat))
        .await;
    assert_eq!(answer["model"], model);
}

#[tokio::test]
async fn a_job_goes_on_when_the_database_was_killed_under_it() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(40)).await;
    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 10).await;

    installation.kill_postgres();

    let path = format!("/fine_tuning/jobs/{job}");
    installation
        .wait_for("the database", async |this| {
            let answer = this.send(Method::GET, &path, None).await;
            answer.status().is_success().then_some(())
        })
        .await;
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(losses(&installation.events(&job).await).len(), 400);
}

#[tokio::test]
async fn a_job_whose_file_was_deleted_fails_by_name() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(40)).await;
    let first = create_job(&installation, &file).await;
    let second_file = installation.upload(&rows(8)).await;
    // The one worker is busy with the first job, so the second has not read its file yet.
    let second = create_job(&installation, &second_file).await;
    let path = format!("/files/{second_file}");
    installation.call(Method::DELETE, &path, None).await;
    let path = format!("/fine_tuning/jobs/{first}/cancel");
    installation.call(Method::POST, &path, None).await;

    let ended = installation.finished(&second).await;
    assert_eq!(ended["status"], "failed");
    assert_eq!(ended["error"]["code"], "file_not_found");
    assert_eq!(ended["error"]["param"], "training_file");
}

#[tokio::test]
async fn rows_that_were_cut_are_counted_on_the_job() {
    let installation = installation_with_a_tiny_base().await;
    let long = json!({"messages": [
        {"role": "user", "content": "count"},
        {"role": "assistant", "content": "1 2 3 ".repeat(100)},
    ]});
    let file = installation.upload(&format!("{}{long}\n", rows(3))).await;
    let settings = json!({"max_steps": 1, "max_seq_len": 64});
    let job = create_job_with(&installation, &file, settings).await;
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let found = &ended["attune"]["data"]["training_file"];
    assert_eq!(
        (&found["n_rows"], &found["truncated_rows"]),
        (&json!(4), &json!(1))
    );
}

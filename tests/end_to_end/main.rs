//! The whole system as processes, with real signals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod bad_rows;
mod buckets;
mod full;
mod importing;
mod kills;
mod memory;
mod outage;
mod pausing;
mod preferences;
mod train_command;
mod upgrading;
mod workers;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::Installation;

/// Rows that a tiny model can learn something from.
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

/// 400 steps over 40 rows, with all that randomness can touch.
fn settings() -> Value {
    json!({
        "n_epochs": 40, "batch_size": 4, "checkpoint_every": 7, "learning_rate": 5e-3,
        "lora": {"rank": 4, "dropout": 0.1},
    })
}

fn tiny_base() -> TempDir {
    let base = TempDir::new().unwrap();
    lm::testing::write_tiny_base(base.path(), 1);
    base
}

async fn installation_with_a_tiny_base() -> Installation {
    let installation = Installation::start().await;
    installation.import(tiny_base().path(), "tiny");
    installation
}

async fn create_job(installation: &Installation, file: &str) -> String {
    create_job_with(installation, file, settings()).await
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
    metrics.map(|event| loss(&event["data"])).collect()
}

/// Step and loss of a step's object, in an event or in `metrics.jsonl`.
fn loss(step: &Value) -> (u64, f64) {
    (
        step["step"].as_u64().unwrap(),
        step["train_loss"].as_f64().unwrap(),
    )
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

/// Asks for a move of the job: `cancel`, `pause`, `resume`.
async fn ask(installation: &Installation, job: &str, verb: &str) -> Value {
    let path = format!("/fine_tuning/jobs/{job}/{verb}");
    installation.call(Method::POST, &path, None).await
}

/// Waits for an event of the job that begins like this.
async fn said(installation: &Installation, job: &str, beginning: &str) {
    installation
        .wait_for(beginning, async |this| {
            says(&this.events(job).await, beginning).then_some(())
        })
        .await;
}

fn says(events: &[Value], beginning: &str) -> bool {
    events
        .iter()
        .any(|event| event["message"].as_str().unwrap().starts_with(beginning))
}

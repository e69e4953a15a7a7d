//! Processes that are killed: nothing is lost, repeated or different.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::Installation;

use crate::{create_job, installation_with_a_tiny_base, losses, rows, says, step_reached};

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
    assert!(says(&events, "Resumed from step "));
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

//! Storage that is away for a while: jobs wait, and go on when it is back.

use std::time::Duration;

use serde_json::Value;
use tests::Installation;

use crate::{create_job, losses, rows, step_reached, tiny_base};

/// Longer than a lease, so that no job gets through it without being claimed again or kept alive.
const AWAY: Duration = Duration::from_secs(6);
const WAITS: &str = "Storage could not be reached; the job will go on when it is back";

/// With the losses of a job that nothing happened to.
async fn installation() -> (Installation, String, Vec<(u64, f64)>) {
    let installation = Installation::start_apart().await;
    installation.import(tiny_base().path(), "tiny");
    let file = installation.upload(&rows(40)).await;
    let job = create_job(&installation, &file).await;
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let losses = losses(&installation.events(&job).await);
    assert_eq!(losses.len(), 400);
    (installation, file, losses)
}

async fn succeeded_with(installation: &Installation, job: &str, expected: &[(u64, f64)]) {
    let ended = installation.finished(job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(losses(&installation.events(job).await), expected);
}

#[tokio::test]
async fn a_job_outlasts_an_outage_of_postgres_and_s3_together() {
    let (mut installation, file, expected) = installation().await;
    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 20).await;

    installation.kill_storage();
    tokio::time::sleep(AWAY).await;
    installation.run_storage().await;

    succeeded_with(&installation, &job, &expected).await;
}

#[tokio::test]
async fn a_running_job_waits_for_s3_with_its_checkpoint() {
    let (mut installation, file, expected) = installation().await;
    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 20).await;

    installation.s3.shut().await;
    tokio::time::sleep(AWAY).await;
    let before = losses(&installation.events(&job).await).len();
    assert!(before < 400, "the job must be stopped by the outage");
    installation.s3.open().await;

    succeeded_with(&installation, &job, &expected).await;
    let claims = |event: &Value| event["message"] == "Fine-tuning job started";
    let events = installation.events(&job).await;
    assert_eq!(events.iter().filter(|event| claims(event)).count(), 1);
}

#[tokio::test]
async fn a_job_whose_files_cannot_be_fetched_uses_no_attempt_up() {
    let (mut installation, file, expected) = installation().await;
    installation.s3.shut().await;
    let job = create_job(&installation, &file).await;
    installation
        .wait_for("the second try", async |this| {
            let events = this.events(&job).await;
            let waits = events.iter().filter(|event| event["message"] == WAITS);
            (waits.count() >= 2).then_some(())
        })
        .await;
    installation.s3.open().await;

    succeeded_with(&installation, &job, &expected).await;
}

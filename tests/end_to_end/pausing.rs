//! Jobs that their tenant sets aside and takes up again.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::{
    ask, create_job, installation_with_a_tiny_base, losses, rows, said, says, step_reached,
};

const SET_ASIDE: &str = "The worker has stored where it was";

#[tokio::test]
async fn a_job_that_is_paused_and_resumed_ends_as_if_nothing_had_happened() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(40)).await;
    let unpaused = create_job(&installation, &file).await;
    installation.finished(&unpaused).await;
    let expected = losses(&installation.events(&unpaused).await);
    assert_eq!(expected.len(), 400);

    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 20).await;
    let asked = Instant::now();
    assert_eq!(ask(&installation, &job, "pause").await["status"], "paused");
    said(&installation, &job, SET_ASIDE).await;
    // Two seconds to notice; the rest is for a step of a machine that does other things too, and the checkpoint.
    assert!(asked.elapsed() < Duration::from_secs(10));
    let before = losses(&installation.events(&job).await);
    assert!(before.len() < 400, "the job must be stopped by the pause");

    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(losses(&installation.events(&job).await), before);
    assert_eq!(ask(&installation, &job, "resume").await["status"], "queued");
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let events = installation.events(&job).await;
    // Nothing was lost to the pause: it goes on from the very step.
    let last = before.last().unwrap().0;
    assert!(says(&events, &format!("Resumed from step {last}")));
    assert_eq!(losses(&events), expected);
}

#[tokio::test]
async fn cancelling_a_paused_job_leaves_its_checkpoints() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(40)).await;
    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 10).await;
    ask(&installation, &job, "pause").await;
    said(&installation, &job, SET_ASIDE).await;
    assert_eq!(
        ask(&installation, &job, "cancel").await["status"],
        "cancelled"
    );
    let path = format!("/fine_tuning/jobs/{job}/checkpoints");
    let checkpoints = installation.call(Method::GET, &path, None).await;
    assert!(!checkpoints["data"].as_array().unwrap().is_empty());
}

//! Jobs that are set aside and taken up again, by their tenant or by a worker that went away for a while.

use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;
use tests::Installation;

use crate::{
    create_job, installation_with_a_tiny_base, losses, rows, says, step_reached, tiny_base,
};

const SET_ASIDE: &str = "The worker has stored where it was";
/// Twice a lease, and a second for the reaper.
const STOPPED: Duration = Duration::from_secs(7);

async fn ask(installation: &Installation, job: &str, verb: &str) -> Value {
    let path = format!("/fine_tuning/jobs/{job}/{verb}");
    installation.call(Method::POST, &path, None).await
}

async fn said(installation: &Installation, job: &str, text: &str) {
    installation
        .wait_for(text, async |this| {
            says(&this.events(job).await, text).then_some(())
        })
        .await;
}

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

#[tokio::test]
async fn a_worker_that_was_stopped_for_twice_its_lease_writes_nothing_when_it_goes_on() {
    let mut installation = Installation::start_apart().await;
    installation.import(tiny_base().path(), "tiny");
    let file = installation.upload(&rows(40)).await;
    let undisturbed = create_job(&installation, &file).await;
    installation.finished(&undisturbed).await;
    let expected = losses(&installation.events(&undisturbed).await);

    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 20).await;
    installation.signal_service("worker", Signal::STOP);
    let stopped = Instant::now();
    installation.run_service("worker");
    said(&installation, &job, "Resumed from step ").await;
    tokio::time::sleep(STOPPED.saturating_sub(stopped.elapsed())).await;
    installation.signal_service("worker", Signal::CONT);

    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(ended["attune"]["attempt"], 2, "{ended}");
    // What the stale worker had in hand would come now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(losses(&installation.events(&job).await), expected);
}

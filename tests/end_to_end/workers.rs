//! Workers that stand still, are told to leave, or work on what nobody wants any more.

use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::Installation;

use crate::{
    ask, create_job, create_job_with, installation_with_a_tiny_base, losses, rows, said, says,
    settings, step_reached, tiny_base,
};

/// Twice a lease.
const STOPPED: Duration = Duration::from_secs(6);
/// A worker's grace period, and what it takes to start nothing more and to end a process on a busy machine.
const LEFT_WITHIN: Duration = Duration::from_secs(25 + 10);
/// Two seconds to notice; the rest is for a micro-batch of a machine that does other things too.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// Each service a process, with a file, and with the losses of a job on it that nothing happened to.
async fn installation() -> (Installation, String, Vec<(u64, f64)>) {
    let installation = Installation::start_apart().await;
    installation.import(tiny_base().path(), "tiny");
    let file = installation.upload(&rows(40)).await;
    let job = create_job(&installation, &file).await;
    installation.finished(&job).await;
    let losses = losses(&installation.events(&job).await);
    assert_eq!(losses.len(), 400);
    (installation, file, losses)
}

/// Everything that clients see of the job and of what it made.
async fn seen(installation: &Installation, job: &str) -> Vec<Value> {
    let mut seen = installation.events(job).await;
    let job = format!("/fine_tuning/jobs/{job}");
    for path in [
        job.clone(),
        format!("{job}/checkpoints?limit=100"),
        format!("{job}/metrics?limit=1000"),
        "/models".to_owned(),
        "/files?limit=100".to_owned(),
    ] {
        seen.push(installation.call(Method::GET, &path, None).await);
    }
    seen
}

/// Waits until a worker has given the job up because it is not its own any more.
async fn given_up(installation: &Installation, job: &str) {
    let line = format!("Job `{job}` went on without us");
    installation
        .wait_for(&line, async |this| this.log().contains(&line).then_some(()))
        .await;
}

#[tokio::test]
async fn a_worker_that_stood_still_while_another_did_its_job_changes_nothing() {
    let (mut installation, file, expected) = installation().await;
    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 20).await;
    installation.signal_service("worker", Signal::STOP);
    let stopped = Instant::now();
    installation.run_service("worker");
    let ended = installation.finished(&job).await;
    tokio::time::sleep(STOPPED.saturating_sub(stopped.elapsed())).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(ended["attune"]["attempt"], 2, "{ended}");
    let (before, stored) = (seen(&installation, &job).await, installation.objects());

    installation.signal_service("worker", Signal::CONT);
    given_up(&installation, &job).await;

    assert_eq!(seen(&installation, &job).await, before);
    let new: Vec<_> = installation
        .objects()
        .difference(&stored)
        .cloned()
        .collect();
    assert!(new.is_empty(), "a stale worker stored {new:?}");
    let events = installation.events(&job).await;
    assert_eq!(losses(&events), expected);
    let ends = events.iter().filter(|event| {
        let message = event["message"].as_str().unwrap();
        message.starts_with("The job ")
            && (message.contains("completed") || message.contains("failed"))
    });
    assert_eq!(ends.count(), 1, "{events:?}");
}

#[tokio::test]
async fn a_worker_that_is_told_to_leave_stores_where_it_was_and_the_next_goes_on_from_there() {
    let (mut installation, file, expected) = installation().await;
    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 20).await;

    let asked = Instant::now();
    let left = installation.end_service("worker", Signal::TERM).await;
    let took = asked.elapsed();
    assert!(
        left.success() && took < LEFT_WITHIN,
        "{left} after {took:?}"
    );

    let path = format!("/fine_tuning/jobs/{job}/checkpoints");
    let checkpoints = installation.call(Method::GET, &path, None).await;
    let stored = checkpoints["data"][0]["step_number"].as_u64().unwrap();
    assert!((20..400).contains(&stored), "{checkpoints}");
    let told = losses(&installation.events(&job).await);
    assert!(told.last().unwrap().0 <= stored, "no step is made twice");
    let path = format!("/fine_tuning/jobs/{job}");
    let waiting = installation.call(Method::GET, &path, None).await;
    assert_eq!(waiting["status"], "queued", "{waiting}");

    installation.run_service("worker");
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let events = installation.events(&job).await;
    assert!(says(&events, &format!("Resumed from step {stored}")));
    assert!(!says(&events, "The worker was lost"), "it took its leave");
    assert_eq!(losses(&events), expected);
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_frees_its_worker_soon() {
    let installation = installation_with_a_tiny_base().await;
    let long = installation.upload(&rows(2000)).await;
    let job = create_job(&installation, &long).await;
    step_reached(&installation, &job, 1).await;

    let asked = Instant::now();
    assert_eq!(
        ask(&installation, &job, "cancel").await["status"],
        "cancelled"
    );
    given_up(&installation, &job).await;
    let took = asked.elapsed();
    assert!(took < NOTICED_WITHIN, "the worker went on for {took:?}");
    let told = installation.events(&job).await;
    assert!(losses(&told).len() < 20_000, "it had come to its end");

    let mut short = settings();
    short["n_epochs"] = json!(1);
    let file = installation.upload(&rows(8)).await;
    let next = create_job_with(&installation, &file, short).await;
    said(&installation, &next, "Fine-tuning job started").await;
    let ended = installation.finished(&next).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(installation.events(&job).await, told, "nothing came after");
}

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
/// A second of grace, two to hand the job back, and what it takes to end a process on a busy machine: less than the computing
/// that nobody waits for takes.
const OVERDUE_WITHIN: Duration = Duration::from_secs(1 + 2 + 7);
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

/// The lease that workers have where nobody sets another: what is noticed when it is renewed comes far too late.
const LONG_LEASE: [(&str, &str); 1] = [("ATTUNE_LEASE_SECS", "60")];

#[tokio::test]
async fn what_a_tenant_wants_is_noticed_long_before_the_lease_is_renewed() {
    let installation = Installation::start_with(&LONG_LEASE).await;
    installation.import(tiny_base().path(), "tiny");
    let long = installation.upload(&rows(2000)).await;
    let job = create_job(&installation, &long).await;
    step_reached(&installation, &job, 1).await;

    let asked = Instant::now();
    assert_eq!(ask(&installation, &job, "pause").await["status"], "paused");
    said(&installation, &job, "The worker has stored where it was").await;
    let took = asked.elapsed();
    assert!(took < NOTICED_WITHIN, "a pause was noticed after {took:?}");
    let told = losses(&installation.events(&job).await);
    assert!(told.len() < 20_000, "it had come to its end");

    assert_eq!(ask(&installation, &job, "resume").await["status"], "queued");
    step_reached(&installation, &job, told.last().unwrap().0 + 1).await;
    let asked = Instant::now();
    ask(&installation, &job, "cancel").await;
    given_up(&installation, &job).await;
    let took = asked.elapsed();
    assert!(took < NOTICED_WITHIN, "a cancel was noticed after {took:?}");
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_its_files_are_read_is_not_prepared_further() {
    let mut installation = Installation::start_apart().await;
    installation.import(tiny_base().path(), "tiny");
    let file = installation.upload(&rows(40)).await;
    let valid = installation.upload(&rows(8)).await;
    let create = json!({
        "model": "tiny", "training_file": file, "validation_file": valid, "attune": {"n_epochs": 1},
    });
    let created = installation
        .call(Method::POST, "/fine_tuning/jobs", Some(create.clone()))
        .await;
    let whole = created["id"].as_str().unwrap().to_owned();
    installation.finished(&whole).await;
    let reads = |this: &Installation, param: &str, job: &str| {
        this.log()
            .contains(&format!("Reading the {param} of `{job}`"))
    };
    assert!(reads(&installation, "validation_file", &whole));

    // S3 stands still and Postgres does not: the worker waits for the training file until it has heard of the cancel.
    installation.signal_service("worker", Signal::STOP);
    let created = installation
        .call(Method::POST, "/fine_tuning/jobs", Some(create))
        .await;
    let job = created["id"].as_str().unwrap().to_owned();
    installation.signal_service("storage", Signal::STOP);
    installation.signal_service("worker", Signal::CONT);
    installation
        .wait_for("the training file to be asked for", async |this| {
            reads(this, "training_file", &job).then_some(())
        })
        .await;
    ask(&installation, &job, "cancel").await;
    let noticed = format!("Job `{job}` is no longer ours");
    installation
        .wait_for(&noticed, async |this| {
            this.log().contains(&noticed).then_some(())
        })
        .await;
    installation.signal_service("storage", Signal::CONT);
    given_up(&installation, &job).await;
    assert!(!reads(&installation, "validation_file", &job), "it read on");
    installation.end(Signal::TERM);
}

#[tokio::test]
async fn a_worker_whose_grace_is_over_leaves_without_its_checkpoint_and_the_job_goes_on() {
    let mut installation =
        Installation::start_apart_with(&[("ATTUNE_WORKER_GRACE_SECS", "1")]).await;
    installation.import(tiny_base().path(), "tiny");
    let file = installation.upload(&rows(40)).await;
    let job = create_job(&installation, &file).await;
    step_reached(&installation, &job, 20).await;
    // The next checkpoint cannot be stored, and the training thread waits for it.
    installation.s3.shut().await;
    let waits = format!("Cannot store progress of `{job}` yet");
    installation
        .wait_for(&waits, async |this| {
            this.log().contains(&waits).then_some(())
        })
        .await;

    let asked = Instant::now();
    let left = installation.end_service("worker", Signal::TERM).await;
    let took = asked.elapsed();
    assert!(
        left.success() && took < OVERDUE_WITHIN,
        "{left} after {took:?}"
    );
    let line = format!("The grace period is over; `{job}` goes on from its last checkpoint");
    assert!(installation.log().contains(&line), "{}", installation.log());
    let path = format!("/fine_tuning/jobs/{job}");
    let waiting = installation.call(Method::GET, &path, None).await;
    assert_eq!(waiting["status"], "queued", "{waiting}");

    installation.s3.open().await;
    installation.run_service("worker");
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let events = installation.events(&job).await;
    assert!(says(&events, "Resumed from step "));
    assert!(
        !says(&events, "The worker was lost"),
        "it handed the job back"
    );
    let steps: Vec<u64> = losses(&events).iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (1..=400).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_worker_that_looks_seldom_is_woken_by_a_new_job() {
    let installation = Installation::start_apart_with(&[("ATTUNE_WORKER_POLL_SECS", "3600")]).await;
    installation.import(tiny_base().path(), "tiny");
    let file = installation.upload(&rows(8)).await;
    // One that nobody waits for shows that the worker listens.
    for _ in 0..2 {
        let mut short = settings();
        short["n_epochs"] = json!(1);
        let job = create_job_with(&installation, &file, short).await;
        let ended = installation.finished(&job).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    }
}

//! What goes wrong on the way to Weights & Biases: never the job, and nothing is shown twice.

use api::outbound::target::Policy;
use serde_json::{Value, json};
use store::wandb::accounts;

use super::recorder::Recorder;
use super::{
    JOBS, KEY, id, path, report, reporter, reporting, said, set_account, start_next, steps,
    time_passes, train, with_recorder,
};
use crate::support::{OPEN, TestApp};

/// A reporter makes its report and dies before it hears that it arrived.
async fn die_at(app: &TestApp, recorder: &Recorder, endpoint: &'static str) {
    recorder.hang_at(endpoint);
    let dies = reporter(app, OPEN).await;
    let dies = tokio::spawn(async move { dies.report_due().await });
    recorder.hung().await;
    dies.abort();
    assert!(dies.await.unwrap_err().is_cancelled());
}

async fn is_running(app: &TestApp, job: &Value) -> bool {
    let job = app.alice.get(&format!("{JOBS}/{}", id(job))).await.ok();
    job["status"] == "running"
}

#[tokio::test]
async fn what_a_dead_reporter_sent_is_sent_again_to_the_same_place() {
    let (app, recorder) = with_recorder().await;
    let job = app.alice.job(reporting()).await;
    let worker = app.worker_store().await;
    let claimed = start_next(&app, &worker).await;
    train(&worker, &claimed, 1..=2).await;

    die_at(&app, &recorder, "graphql").await;
    assert_eq!(report(&app).await, 0, "it may still be alive");
    time_passes(&app).await;
    die_at(&app, &recorder, "file_stream").await;
    let run = recorder.run(&path(&job));
    assert_eq!((run.n_made, steps(&run.history)), (2, vec![1, 2]));
    assert_eq!(said(&app, &job).await.len(), 1);

    // More has come meanwhile.
    train(&worker, &claimed, 3..=4).await;
    time_passes(&app).await;
    assert_eq!(report(&app).await, 1);
    let run = recorder.run(&path(&job));
    assert_eq!(
        (steps(&run.history), &run.offsets[..]),
        (vec![1, 2, 3, 4], &[0, 0][..])
    );
    assert_eq!((recorder.n_runs(), run.n_made), (1, 2));
    assert_eq!(said(&app, &job).await.len(), 1);
}

#[tokio::test]
async fn a_key_that_is_refused_is_told_once_and_a_new_one_is_tried_at_once() {
    let (app, recorder) = with_recorder().await;
    let fresh = "fedcba9876543210fedcba9876543210fedcba98";
    recorder.accept_only(fresh);
    let job = app.alice.job(reporting()).await;
    let worker = app.worker_store().await;
    let claimed = start_next(&app, &worker).await;
    for _ in 0..2 {
        assert_eq!(report(&app).await, 1);
        time_passes(&app).await;
    }
    let told = said(&app, &job).await;
    let [(level, message)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(level, "warn");
    assert!(
        message.contains("(401)") && message.contains("attune admin project wandb set"),
        "{message}"
    );
    // The recorder repeats what it was sent; no event and no job does.
    let shown = app
        .alice
        .get(&format!("{JOBS}/{}/events", id(&job)))
        .await
        .text
        + &app.alice.get(&format!("{JOBS}/{}", id(&job))).await.text;
    let encoded = "YXBpOjAxMjM0NTY3ODlhYmNkZWYw";
    assert!(recorder.received().contains(encoded));
    assert!(!shown.contains(KEY) && !shown.contains(encoded), "{shown}");
    assert!(is_running(&app, &job).await);

    // A pause is left, but there is news.
    assert_eq!(report(&app).await, 1);
    set_account(&app, app.alice_project, &recorder.url, fresh).await;
    train(&worker, &claimed, 1..=1).await;
    assert_eq!(report(&app).await, 1);
    assert_eq!(steps(&recorder.run(&path(&job)).history), [1]);
    let told = said(&app, &job).await;
    assert_eq!((told.len(), told[1].0.as_str()), (2, "info"));
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_is_told_all_of_it_afterwards() {
    let (app, recorder) = with_recorder().await;
    let job = app.alice.job(reporting()).await;
    let worker = app.worker_store().await;
    let claimed = start_next(&app, &worker).await;
    assert_eq!(report(&app).await, 1);
    train(&worker, &claimed, 1..=3).await;
    time_passes(&app).await;
    recorder.refuse_with([503, 429, 302, 500]);
    for n_warnings in [0, 0, 1, 1] {
        assert_eq!(report(&app).await, 1);
        assert_eq!(report(&app).await, 0, "it pauses");
        let told = said(&app, &job).await;
        let warnings = told.iter().filter(|(level, _)| level == "warn");
        assert_eq!(warnings.count(), n_warnings, "{told:?}");
        time_passes(&app).await;
    }
    assert_eq!(report(&app).await, 1);
    let run = recorder.run(&path(&job));
    assert_eq!((steps(&run.history), run.n_made), (vec![1, 2, 3], 1));
    assert!(is_running(&app, &job).await);
}

#[tokio::test]
async fn a_server_that_never_comes_back_is_given_up_and_the_job_succeeds() {
    let (app, recorder) = with_recorder().await;
    let job = app.alice.job(reporting()).await;
    drop(recorder);
    app.finish_next_job().await;
    let mut n_reports = 0;
    for _ in 0..20 {
        n_reports += report(&app).await;
        time_passes(&app).await;
    }
    assert_eq!(n_reports, 13);
    let shown = app.alice.get(&format!("{JOBS}/{}", id(&job))).await.ok();
    assert_eq!(
        (&shown["status"], &shown["error"]["message"]),
        (&json!("succeeded"), &Value::Null)
    );
    let told = said(&app, &job).await;
    assert_eq!((told.len(), told[0].0.as_str()), (1, "warn"));
    assert!(!told[0].1.contains("127.0.0.1"), "{told:?}");
}

#[tokio::test]
async fn an_account_that_was_taken_away_is_missed_by_name() {
    let (app, recorder) = with_recorder().await;
    let job = app.alice.job(reporting()).await;
    let worker = app.worker_store().await;
    start_next(&app, &worker).await;
    assert_eq!(report(&app).await, 1);
    let mut tx = app.database.store().operator_tx().await.unwrap();
    assert!(accounts::remove(&mut tx, app.alice_project).await.unwrap());
    tx.commit().await.unwrap();
    let n_requests = recorder.n_requests();
    for _ in 0..2 {
        time_passes(&app).await;
        assert_eq!(report(&app).await, 1);
    }
    assert_eq!(recorder.n_requests(), n_requests);
    let told = said(&app, &job).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[1].0 == "warn" && told[1].1.contains("no account there any more"),
        "{told:?}"
    );

    set_account(&app, app.alice_project, &recorder.url, KEY).await;
    assert_eq!(report(&app).await, 1);
    assert_eq!(recorder.n_requests(), n_requests + 1);
}

#[tokio::test]
async fn a_server_within_the_walls_is_reached_only_if_the_operator_allows() {
    let (app, recorder) = with_recorder().await;
    let worker = app.worker_store().await;
    for (policy, reason) in [
        (Policy::default(), "must begin with `https://`"),
        (
            Policy {
                allow_http: true,
                allow_private: false,
            },
            "not public",
        ),
    ] {
        let job = app.alice.job(reporting()).await;
        start_next(&app, &worker).await;
        let strict = reporter(&app, policy).await;
        assert_eq!(strict.report_due().await.unwrap(), 1);
        let told = said(&app, &job).await;
        assert!(told.len() == 1 && told[0].1.contains(reason), "{told:?}");
        assert!(!told[0].1.contains("127.0.0.1"), "{told:?}");
    }
    assert_eq!(recorder.n_requests(), 0);
    time_passes(&app).await;
    assert_eq!((report(&app).await, recorder.n_runs()), (2, 2));
}

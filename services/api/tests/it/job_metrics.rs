//! The numbers of a job's steps.

use serde_json::{Value, json};
use store::metrics::{self, StepMetrics};

use crate::support::TestApp;

fn step(step: u32) -> StepMetrics {
    StepMetrics {
        step: u64::from(step),
        // A curve that falls, with one spike.
        train_loss: if step == 777 {
            50.0
        } else {
            2.0 - f64::from(step) / 1000.0
        },
        train_accuracy: 0.5,
        valid_loss: step.is_multiple_of(100).then_some(1.5),
        valid_accuracy: step.is_multiple_of(100).then_some(0.25),
        learning_rate: 1e-4,
        grad_norm: 1.0,
        n_tokens: 512,
        n_loss_tokens: 100,
        step_ms: 40.0,
    }
}

/// The path of the metrics of a running job that made so many steps.
async fn after_steps(app: &TestApp, n_steps: u32) -> String {
    let job = app.alice.job(json!({})).await;
    let worker = app.worker_store().await;
    let claimed = app.claim(&worker).await;
    let mut tx = worker.tenant_tx(app.alice_project).await.unwrap();
    let steps: Vec<StepMetrics> = (1..=n_steps).map(step).collect();
    metrics::record(&mut tx, &claimed.lease, &steps)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    format!(
        "/v1/fine_tuning/jobs/{}/metrics",
        job["id"].as_str().unwrap()
    )
}

fn steps(series: &Value) -> Vec<u64> {
    let steps = series["step"].as_array().unwrap();
    steps.iter().map(|step| step.as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_step_is_there_unless_fewer_are_asked_for() {
    let app = TestApp::start().await;
    let path = after_steps(&app, 1000).await;
    let whole = app.alice.get(&path).await.ok();
    assert_eq!(
        (&whole["n_steps"], &whole["downsampled"]),
        (&json!(1000), &json!(false))
    );
    assert_eq!(steps(&whole["train"]), (1..=1000).collect::<Vec<_>>());
    assert_eq!(
        steps(&whole["valid"]),
        (1..=10).map(|n| n * 100).collect::<Vec<_>>()
    );
    assert_eq!(whole["train"]["train_loss"][776], json!(50.0));
    assert_eq!(whole["valid"]["valid_mean_token_accuracy"][0], json!(0.25));

    let thin = app.alice.get(&format!("{path}?max_points=50")).await.ok();
    let left = steps(&thin["train"]);
    assert!(left.len() <= 50, "{}", left.len());
    assert_eq!((left[0], left[left.len() - 1]), (1, 1000));
    assert!(left.contains(&777), "the spike stays: {left:?}");
    assert_eq!(
        (&thin["n_steps"], &thin["downsampled"]),
        (&json!(1000), &json!(true))
    );
    let columns = thin["train"].as_object().unwrap();
    assert!(
        columns
            .values()
            .all(|column| column.as_array().unwrap().len() == left.len())
    );
}

#[tokio::test]
async fn a_run_of_any_length_is_told_whole_in_pages() {
    let app = TestApp::start().await;
    let path = after_steps(&app, 100_250).await;
    let first = app.alice.get(&path).await.ok();
    assert_eq!(steps(&first["train"]), (1..=100_000).collect::<Vec<_>>());
    let told = |page: &Value| {
        let keys = ["n_steps", "has_more", "downsampled"];
        keys.map(|key| page[key].clone())
    };
    assert_eq!(told(&first), [json!(100_250), json!(true), json!(false)]);
    let rest = app.alice.get(&format!("{path}?after=100000")).await.ok();
    assert_eq!(
        steps(&rest["train"]),
        (100_001..=100_250).collect::<Vec<_>>()
    );
    assert_eq!(steps(&rest["valid"]), [100_100, 100_200]);
    assert_eq!(told(&rest), [json!(100_250), json!(false), json!(false)]);

    // Pages that end within, at and beyond what is read at once, and at the end of the run.
    for (after, limit, last, has_more) in [
        (3, 7, 10, true),
        (0, 5_000, 5_000, true),
        (10, 5_001, 5_011, true),
        (100_000, 249, 100_249, true),
        (100_000, 250, 100_250, false),
    ] {
        let page = format!("{path}?after={after}&limit={limit}");
        let page = app.alice.get(&page).await.ok();
        assert_eq!(
            steps(&page["train"]),
            (after + 1..=last).collect::<Vec<_>>()
        );
        assert_eq!(page["has_more"], json!(has_more), "{after} {limit}");
    }
    let beyond = format!("{path}?after=99999999999999999999");
    let beyond = app.alice.get(&beyond).await.ok();
    assert_eq!(
        (steps(&beyond["train"]), &beyond["has_more"]),
        (vec![], &json!(false))
    );

    let thin = app.alice.get(&format!("{path}?max_points=1000")).await.ok();
    assert!(steps(&thin["train"]).len() <= 1000);
    assert_eq!(told(&thin), [json!(100_250), json!(false), json!(true)]);
    for with in ["after=1", "limit=5"] {
        let both = app.alice.get(&format!("{path}?max_points=10&{with}")).await;
        assert_eq!(both.refusal().1.as_deref(), Some("max_points"));
    }
}

#[tokio::test]
async fn a_job_that_has_not_begun_has_empty_columns() {
    let app = TestApp::start().await;
    let path = after_steps(&app, 0).await;
    let metrics = app.alice.get(&path).await.ok();
    assert_eq!(metrics["train"]["step"], json!([]));
    assert_eq!(metrics["downsampled"], json!(false));
    let refused = app.alice.get(&format!("{path}?max_points=many")).await;
    assert_eq!(refused.refusal().1.as_deref(), Some("max_points"));
}

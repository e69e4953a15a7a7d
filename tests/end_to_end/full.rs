//! Jobs that train every weight, and the models they make.

use reqwest::Method;
use serde_json::{Value, json};
use tests::Installation;

use crate::{create_job_with, installation_with_a_tiny_base, losses, rows, says, step_reached};

async fn answer(installation: &Installation, model: &str) -> Value {
    let body = json!({
        "model": model, "temperature": 0, "max_tokens": 4, "seed": 1,
        "messages": [{"role": "user", "content": "is 3 odd?"}],
    });
    let answer = installation
        .call(Method::POST, "/chat/completions", Some(body))
        .await;
    answer["choices"][0]["message"]["content"].clone()
}

#[tokio::test]
async fn a_model_whose_every_weight_was_trained_answers_like_any_other() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(24)).await;
    let asked = json!({
        "tuning": "full", "train_embeddings": true, "n_epochs": 8, "batch_size": 4, "learning_rate": 3e-3,
        "checkpoint_every": 24,
    });
    let job = create_job_with(&installation, &file, asked).await;
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let seen = losses(&installation.events(&job).await);
    assert!(seen[seen.len() - 1].1 < 0.5 * seen[0].1, "{seen:?}");

    let tuned = ended["fine_tuned_model"].as_str().unwrap();
    let answer = async |model: &str| answer(&installation, model).await;
    let (base, whole) = (answer("tiny").await, answer(tuned).await);
    assert_ne!(whole, base);
    let last = format!("{tuned}:ckpt-step-48");
    assert_eq!(
        answer(&last).await,
        whole,
        "the last checkpoint is the model"
    );
    assert_eq!(answer("tiny").await, base, "the base stays as it is");
}

/// A job over `file` that trains every weight of `model`.
fn whole(model: &str, file: &str, n_epochs: u64) -> Value {
    json!({
        "model": model, "training_file": file, "validation_file": file, "seed": 5,
        "attune": {
            "tuning": "full", "train_embeddings": true, "n_epochs": n_epochs, "batch_size": 4,
            "learning_rate": 1e-3, "checkpoint_every": 6, "keep": "last",
        },
    })
}

async fn create(installation: &Installation, job: Value) -> String {
    let job = installation
        .call(Method::POST, "/fine_tuning/jobs", Some(job))
        .await;
    job["id"].as_str().unwrap().to_owned()
}

async fn succeeded(installation: &Installation, job: &str) -> String {
    let ended = installation.finished(job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    ended["fine_tuned_model"].as_str().unwrap().to_owned()
}

/// The validation losses that a job told of, in order.
fn valid_losses(events: &[Value]) -> Vec<f64> {
    let told = events.iter().map(|event| &event["data"]["valid_loss"]);
    told.filter_map(Value::as_f64).collect()
}

/// The hashes in every model's report.
fn hashes(installation: &Installation) -> Vec<Value> {
    let objects = installation.objects().into_iter();
    let reports = objects.filter(|path| path.ends_with("report.json"));
    reports
        .map(|path| {
            let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            report["hashes"].clone()
        })
        .collect()
}

#[tokio::test]
async fn a_job_goes_on_from_weights_that_were_trained_and_outlives_its_worker() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(24)).await;
    let first = create(&installation, whole("tiny", &file, 4)).await;
    let tuned = succeeded(&installation, &first).await;
    let before = valid_losses(&installation.events(&first).await);

    let second = create(&installation, whole(&tuned, &file, 40)).await;
    let model = succeeded(&installation, &second).await;
    let events = installation.events(&second).await;
    let after = valid_losses(&events);
    assert_eq!(
        after.first(),
        before.last(),
        "it starts where the first ended"
    );
    assert!(after[0] < 0.9 * before[0], "{before:?}");
    assert!(after[after.len() - 1] < 0.5 * after[0], "{after:?}");
    let (base, whole_model) = (
        answer(&installation, "tiny").await,
        answer(&installation, &model).await,
    );
    assert_ne!(whole_model, base);
    let last = format!("{model}:ckpt-step-240");
    assert_eq!(answer(&installation, &last).await, whole_model);
    let [a, b]: [Value; 2] = hashes(&installation).try_into().unwrap();
    assert_eq!(a["base"], b["base"], "the base's files are the same");
    let initial = [&a["initial"], &b["initial"]];
    assert_eq!(
        initial.iter().filter(|hash| hash.is_null()).count(),
        1,
        "{initial:?}"
    );

    let killed = create(&installation, whole(&tuned, &file, 40)).await;
    step_reached(&installation, &killed, 20).await;
    installation.kill_service("worker");
    succeeded(&installation, &killed).await;
    let told = installation.events(&killed).await;
    assert!(says(&told, "Resumed from step "));
    assert_eq!(losses(&told), losses(&events));
}

#[tokio::test]
async fn an_adapter_on_weights_that_were_trained_is_refused_with_the_way_out() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(8)).await;
    let first = create(&installation, whole("tiny", &file, 1)).await;
    let tuned = succeeded(&installation, &first).await;
    let asked = json!({"model": tuned, "training_file": file});
    let answer = installation
        .send(Method::POST, "/fine_tuning/jobs", Some(asked))
        .await;
    assert_eq!(answer.status(), 400);
    let refused: Value = answer.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "incompatible_model", "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("set `tuning` to `full`"), "{message}");
}

//! A job that trains every weight, and the model it makes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{create_job_with, installation_with_a_tiny_base, losses, rows};

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
    let answer = async |model: &str| {
        let body = json!({
            "model": model, "temperature": 0, "max_tokens": 4, "seed": 1,
            "messages": [{"role": "user", "content": "is 3 odd?"}],
        });
        let answer = installation
            .call(Method::POST, "/chat/completions", Some(body))
            .await;
        answer["choices"][0]["message"]["content"].clone()
    };
    let (base, whole) = (answer("tiny").await, answer(tuned).await);
    assert_ne!(whole, base);
    let last = format!("{tuned}:ckpt-step-48");
    assert_eq!(
        answer(&last).await,
        whole,
        "the last checkpoint is the model"
    );
    assert_eq!(answer("tiny").await, base, "the base stays as it is");

    let goes_on = json!({"model": tuned, "training_file": file});
    let refused = refused(&installation, goes_on).await;
    assert_eq!(refused["error"]["code"], "incompatible_model", "{refused}");
}

async fn refused(installation: &tests::Installation, asked: Value) -> Value {
    let job = installation
        .call(Method::POST, "/fine_tuning/jobs", Some(asked))
        .await;
    let job = installation.finished(job["id"].as_str().unwrap()).await;
    assert_eq!(job["status"], "failed", "{job}");
    job
}

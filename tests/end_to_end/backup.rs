//! A backup is worth what its restore gives back.

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tests::Installation;

use crate::{create_job_with, rows, tiny_base};

#[tokio::test]
async fn what_was_backed_up_answers_elsewhere_as_it_did() {
    let original = Installation::start_apart().await;
    original.import(tiny_base().path(), "tiny");
    let file = original.upload(&rows(24)).await;
    let asked = json!({"n_epochs": 4, "learning_rate": 5e-3, "lora": {"rank": 4}});
    let job = create_job_with(&original, &file, asked).await;
    let ended = original.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let chat = json!({
        "model": ended["fine_tuned_model"], "temperature": 0, "max_tokens": 6,
        "messages": [{"role": "user", "content": "is 3 odd?"}],
    });
    let answer = async |installation: &Installation| {
        let answer = installation
            .call(Method::POST, "/chat/completions", Some(chat.clone()))
            .await;
        answer["choices"][0]["message"]["content"].clone()
    };
    let said = answer(&original).await;

    let backup = TempDir::new().unwrap();
    original.back_up(backup.path());
    let later = original.upload(&rows(8)).await;
    drop(original);

    let restored = Installation::restored(backup.path()).await;
    let path = format!("/fine_tuning/jobs/{job}");
    assert_eq!(restored.call(Method::GET, &path, None).await, ended);
    assert_eq!(answer(&restored).await, said);
    let path = format!("/files/{later}");
    let missing = restored.send(Method::GET, &path, None).await;
    assert_eq!(missing.status(), 404, "it came after the backup");
    // And it works on: a job that goes on from the restored model.
    let asked = json!({
        "model": ended["fine_tuned_model"], "training_file": file,
        "attune": {"max_steps": 2, "lora": {"rank": 4}},
    });
    let next = restored
        .call(Method::POST, "/fine_tuning/jobs", Some(asked))
        .await;
    let next = restored.finished(next["id"].as_str().unwrap()).await;
    assert_eq!(next["status"], "succeeded", "{next}");
}

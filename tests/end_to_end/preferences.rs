//! Jobs that learn from preferences, and jobs that mix rows in, through the API.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{installation_with_a_tiny_base, rows, says};

/// Prompts with a better and a worse answer.
fn preferences(n: usize) -> String {
    let said = |text: &str| json!([{"role": "assistant", "content": text}]);
    let row = |i: usize| {
        json!({
            "input": {"messages": [{"role": "user", "content": format!("is {i} odd?")}]},
            "preferred_output": said(if i.is_multiple_of(2) { "no" } else { "yes" }),
            "non_preferred_output": said("who knows"),
        })
    };
    let lines: Vec<String> = (0..n).map(|i| row(i).to_string()).collect();
    lines.join("\n") + "\n"
}

#[tokio::test]
async fn a_tuned_model_is_tuned_further_by_preferences() {
    let installation = installation_with_a_tiny_base().await;
    let chats = installation.upload(&rows(24)).await;
    let supervised = json!({
        "model": "tiny", "training_file": chats, "seed": 3,
        "attune": {"n_epochs": 2, "learning_rate": 5e-3, "lora": {"rank": 4}},
    });
    let first = job(&installation, supervised).await;

    let pairs = installation.upload(&preferences(24)).await;
    let unseen = installation.upload(&preferences(36)).await;
    let preferred = json!({
        "model": first["fine_tuned_model"], "training_file": pairs, "validation_file": unseen, "seed": 3,
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5, "n_epochs": 4}}},
        "attune": {"learning_rate": 5e-3, "lora": {"rank": 4}},
    });
    let second = job(&installation, preferred).await;
    let events = installation.events(second["id"].as_str().unwrap()).await;
    let measured: Vec<f64> = events
        .iter()
        .filter_map(|event| event["data"]["valid_loss"].as_f64())
        .collect();
    // The reference is the model that the job started from, so the loss begins at log 2, whatever that had learned.
    assert!((measured[0] - 2.0_f64.ln()).abs() < 1e-5, "{measured:?}");
    assert!(
        measured[measured.len() - 1] < 0.9 * measured[0],
        "{measured:?}"
    );
    assert!(says(&events, "Perplexity of a general text: "));
}

#[tokio::test]
async fn rows_of_another_file_are_mixed_in() {
    let installation = installation_with_a_tiny_base().await;
    let chats = installation.upload(&rows(12)).await;
    let others = installation.upload(&rows(40)).await;
    let asked = json!({
        "model": "tiny", "training_file": chats, "seed": 3,
        "attune": {"n_epochs": 2, "batch_size": 4, "replay": {"file": others, "ratio": 0.5}, "lora": {"rank": 2}},
    });
    let job = job(&installation, asked).await;
    assert_eq!(job["attune"]["data"]["replay_file"]["n_rows"], 40);
    let events = installation.events(job["id"].as_str().unwrap()).await;
    assert!(says(&events, "Validated attune.replay.file: 40 rows"));
    let steps = events
        .iter()
        .filter(|event| event["type"] == "metrics")
        .count();
    assert_eq!(steps, 2 * 24 / 4);
}

#[tokio::test]
async fn conversations_are_no_preferences_and_say_so() {
    let installation = installation_with_a_tiny_base().await;
    let chats = installation.upload(&rows(4)).await;
    let asked = json!({"model": "tiny", "training_file": chats, "method": {"type": "dpo"}});
    let job = installation
        .call(Method::POST, "/fine_tuning/jobs", Some(asked))
        .await;
    let job = installation.finished(job["id"].as_str().unwrap()).await;
    assert_eq!(job["status"], "failed");
    let message = job["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("line 1") && message.contains("`input` is missing"),
        "{message}"
    );
}

async fn job(installation: &tests::Installation, asked: Value) -> Value {
    let job = installation
        .call(Method::POST, "/fine_tuning/jobs", Some(asked))
        .await;
    let job = installation.finished(job["id"].as_str().unwrap()).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    job
}

//! A data directory that is older than most of the program.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::Installation;

use crate::{create_job_with, installation_with_a_tiny_base, rows, settings};

async fn answer(installation: &Installation, model: &str) -> Value {
    let chat = json!({
        "model": model, "max_tokens": 4, "temperature": 0,
        "messages": [{"role": "user", "content": "is 3 odd?"}],
    });
    let answer = installation
        .call(Method::POST, "/chat/completions", Some(chat))
        .await;
    answer["choices"][0]["message"].clone()
}

/// What of a list tells its elements apart.
async fn listed(installation: &Installation, path: &str) -> Vec<Value> {
    let list = installation.call(Method::GET, path, None).await;
    let elements = list["data"].as_array().unwrap().iter();
    let told = |element: &Value| {
        let fields = ["id", "status", "fine_tuned_model", "created_at", "filename"];
        fields.map(|field| element[field].clone()).into()
    };
    elements.map(told).collect()
}

#[tokio::test]
async fn a_directory_of_the_first_version_keeps_its_jobs_models_and_files() {
    let mut installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(8)).await;
    let mut short = settings();
    short["n_epochs"] = json!(2);
    let job = create_job_with(&installation, &file, short.clone()).await;
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let model = ended["fine_tuned_model"].as_str().unwrap();
    let lists = ["/fine_tuning/jobs", "/models", "/files"];
    let mut before = Vec::new();
    for list in lists {
        before.push(listed(&installation, list).await);
    }
    let (said, events) = (
        answer(&installation, model).await,
        installation.events(&job).await,
    );
    installation.end(Signal::TERM);
    installation.run_storage().await;
    installation.become_the_first_version();
    installation.end(Signal::TERM);

    installation.up().await;
    for (list, before) in lists.into_iter().zip(before) {
        assert_eq!(listed(&installation, list).await, before, "{list}");
    }
    assert_eq!(installation.events(&job).await, events);
    assert_eq!(answer(&installation, model).await, said);
    // It does what it did, on the file that it had.
    let next = create_job_with(&installation, &file, short).await;
    let ended = installation.finished(&next).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}

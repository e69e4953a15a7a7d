//! Files that are gone when their job begins, and rows that do not fit.

use reqwest::Method;
use serde_json::json;

use crate::{create_job, create_job_with, installation_with_a_tiny_base, rows};

#[tokio::test]
async fn a_job_whose_file_is_lost_fails_by_name() {
    let installation = installation_with_a_tiny_base().await;
    let file = installation.upload(&rows(40)).await;
    let first = create_job(&installation, &file).await;
    let second_file = installation.upload(&rows(8)).await;
    // The one worker is busy with the first job, so the second has not read its file yet.
    let second = create_job(&installation, &second_file).await;
    // Nobody can delete it as long as the job needs it; but files expire, and disks fail.
    let path = format!("/files/{second_file}");
    let refused = installation.send(Method::DELETE, &path, None).await;
    assert_eq!(refused.status(), 400);
    installation.lose_content(&second_file);
    let path = format!("/fine_tuning/jobs/{first}/cancel");
    installation.call(Method::POST, &path, None).await;

    let ended = installation.finished(&second).await;
    assert_eq!(ended["status"], "failed");
    assert_eq!(ended["error"]["code"], "file_not_found");
    assert_eq!(ended["error"]["param"], "training_file");
}

#[tokio::test]
async fn rows_that_were_cut_are_counted_on_the_job() {
    let installation = installation_with_a_tiny_base().await;
    let long = json!({"messages": [
        {"role": "user", "content": "count"},
        {"role": "assistant", "content": "1 2 3 ".repeat(100)},
    ]});
    let file = installation.upload(&format!("{}{long}\n", rows(3))).await;
    let settings = json!({"max_steps": 1, "max_seq_len": 64});
    let job = create_job_with(&installation, &file, settings).await;
    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let found = &ended["attune"]["data"]["training_file"];
    assert_eq!(
        (&found["n_rows"], &found["truncated_rows"]),
        (&json!(4), &json!(1))
    );
    let events = installation.events(&job).await;
    let estimated = events.iter().find(|event| {
        let said = event["message"].as_str().unwrap_or_default();
        said.starts_with("Estimated: 1 step, ")
    });
    let estimated = estimated.expect("an estimate is said before the first step");
    assert_eq!(estimated["data"]["steps"], 1, "{estimated}");
    let reported = events
        .iter()
        .any(|event| event["data"]["report"] == "report.json");
    assert!(reported, "the report is named at the end");
}

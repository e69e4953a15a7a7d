//! Lists of jobs and events.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::TestApp;

/// The `k` of every job's metadata on a page, `-` for none.
fn marks(page: &Value) -> String {
    let jobs = page["data"].as_array().unwrap();
    jobs.iter()
        .map(|job| job["metadata"]["k"].as_str().unwrap_or("-"))
        .collect()
}

async fn three_jobs(app: &TestApp) -> Vec<String> {
    let mut ids = Vec::new();
    for metadata in [
        json!({"k": "a", "team": "x y"}),
        json!({"k": "b", "team": "x y"}),
        Value::Null,
    ] {
        let job = app.alice.job(json!({"metadata": metadata})).await;
        ids.push(job["id"].as_str().unwrap().to_owned());
        app.clock.advance(Duration::from_secs(1));
    }
    ids
}

#[tokio::test]
async fn jobs_come_newest_first_in_exact_pages() {
    let app = TestApp::start().await;
    let ids = three_jobs(&app).await;
    let page = app.alice.get("/v1/fine_tuning/jobs?limit=2").await.ok();
    assert_eq!(
        (marks(&page).as_str(), &page["has_more"]),
        ("-b", &json!(true))
    );
    let page = app
        .alice
        .get(&format!("/v1/fine_tuning/jobs?limit=1&after={}", ids[1]))
        .await
        .ok();
    assert_eq!(
        (marks(&page).as_str(), &page["has_more"]),
        ("a", &json!(false))
    );
}

#[tokio::test]
async fn jobs_are_filtered_by_metadata() {
    let app = TestApp::start().await;
    three_jobs(&app).await;
    for (query, expected) in [
        ("metadata%5Bteam%5D=x+y", "ba"),
        ("metadata%5Bteam%5D=x%20y&metadata%5Bk%5D=a", "a"),
        ("metadata%5Bteam%5D=", ""),
        ("metadata=null", "-"),
        ("", "-ba"),
    ] {
        let page = app
            .alice
            .get(&format!("/v1/fine_tuning/jobs?{query}"))
            .await
            .ok();
        assert_eq!(marks(&page), expected, "{query}");
    }
}

#[tokio::test]
async fn events_are_paged_by_cursor() {
    let app = TestApp::start().await;
    let ids = three_jobs(&app).await;
    let path = format!("/v1/fine_tuning/jobs/{}/events", ids[0]);
    let page = app.alice.get(&format!("{path}?limit=1")).await.ok();
    assert_eq!(page["has_more"], true);
    let after = page["last_id"].as_str().unwrap();
    let rest = app
        .alice
        .get(&format!("{path}?limit=1&after={after}"))
        .await
        .ok();
    assert_eq!(rest["has_more"], false);
    assert!(
        rest["data"][0]["message"]
            .as_str()
            .unwrap()
            .starts_with("Created fine-tuning job")
    );
}

#[tokio::test]
async fn an_unknown_cursor_is_refused() {
    let app = TestApp::start().await;
    let ids = three_jobs(&app).await;
    let zeros = "0".repeat(32);
    for path in [
        format!("/v1/fine_tuning/jobs?after=ftjob-{zeros}"),
        "/v1/fine_tuning/jobs?after=x".to_owned(),
        format!(
            "/v1/fine_tuning/jobs/{}/events?after=ftevent-{zeros}",
            ids[0]
        ),
        format!(
            "/v1/fine_tuning/jobs/{}/checkpoints?after=ftckpt_{zeros}",
            ids[0]
        ),
    ] {
        let refusal = app.alice.get(&path).await.refusal();
        assert_eq!(
            (refusal.0, refusal.1.as_deref()),
            (400, Some("after")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_empty_value_is_a_value_to_filter_by() {
    let app = TestApp::start().await;
    for metadata in [json!({"k": ""}), json!({"k": "x"}), json!({"other": ""})] {
        app.alice.job(json!({"metadata": metadata})).await;
    }
    let page = app
        .alice
        .get("/v1/fine_tuning/jobs?metadata[k]=")
        .await
        .ok();
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    assert_eq!(page["data"][0]["metadata"], json!({"k": ""}));
}

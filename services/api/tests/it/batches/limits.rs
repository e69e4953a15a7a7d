//! A project's limits hold for its batches, too: lines wait for their minute, and answers need room.

use std::time::Duration;

use serde_json::{Value, json};
use store::quotas::{self, Quotas};

use super::{PACE, Pace, ids, runner, start, take_turn};
use crate::support::TestApp;

/// Over before anybody's minute is.
const SHORT: Pace = Pace {
    turn: Duration::from_millis(300),
    ..PACE
};

async fn limit(app: &TestApp, quotas: Quotas) {
    let mut tx = app.database.store().operator_tx().await.unwrap();
    quotas::set(&mut tx, app.alice_org, app.alice_project, &quotas)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    // Limits per minute are read again after five seconds.
    app.clock.advance(Duration::from_secs(5));
}

async fn stored_bytes(app: &TestApp) -> u64 {
    let mut tx = app
        .worker_store()
        .await
        .tenant_tx(app.alice_project)
        .await
        .unwrap();
    quotas::storage_bytes(&mut tx).await.unwrap()
}

fn answered(batch: &Value) -> (&str, &Value) {
    (
        batch["status"].as_str().unwrap(),
        &batch["request_counts"]["completed"],
    )
}

#[tokio::test]
async fn lines_wait_for_the_requests_of_their_minute() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["ok"; 5]).await;
    let two = Quotas {
        max_requests_per_minute: Some(2),
        ..Quotas::default()
    };
    limit(&app, two).await;
    let runner = runner(&app, &stand_in, SHORT).await;
    for (asked, seconds) in [(2, 60), (4, 30)] {
        take_turn(&runner).await;
        take_turn(&runner).await;
        assert_eq!(stand_in.n_asked(), asked);
        app.clock.advance(Duration::from_secs(seconds));
    }
    take_turn(&runner).await;
    limit(&app, Quotas::default()).await;
    let done = app.alice.found_batch(&id).await;
    assert_eq!(answered(&done), ("completed", &json!(5)));
    assert_eq!(done["request_counts"]["failed"], 0);
}

#[tokio::test]
async fn tokens_that_lines_do_not_take_let_the_next_through() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["ok"; 4]).await;
    // A line is expected to take 256 for its answer and some for its prompt; each takes 12.
    let tokens = Quotas {
        max_tokens_per_minute: Some(320),
        ..Quotas::default()
    };
    limit(&app, tokens).await;
    let runner = runner(&app, &stand_in, SHORT).await;
    for _ in 0..4 {
        take_turn(&runner).await;
    }
    let done = app.alice.found_batch(&id).await;
    assert_eq!(answered(&done), ("completed", &json!(4)));
    assert_eq!(stand_in.most_at_once(), 1, "two do not fit into a minute");

    // 48 of them are gone for good, as the clock stands still: 272 are left, and soon they are too few.
    let id = app.alice.batch(&["ok"; 2]).await;
    for _ in 0..3 {
        take_turn(&runner).await;
    }
    let waiting = app.alice.found_batch(&id).await;
    assert_eq!(answered(&waiting), ("in_progress", &json!(1)));
    app.clock.advance(Duration::from_mins(1));
    take_turn(&runner).await;
    let done = app.alice.found_batch(&id).await;
    assert_eq!(answered(&done), ("completed", &json!(2)));
    assert_eq!(done["request_counts"]["failed"], 0);
}

#[tokio::test]
async fn a_line_that_no_minute_has_the_tokens_for_is_told_so() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["ok"]).await;
    let tokens = Quotas {
        max_tokens_per_minute: Some(100),
        ..Quotas::default()
    };
    limit(&app, tokens).await;
    take_turn(&runner(&app, &stand_in, PACE).await).await;
    assert_eq!(stand_in.n_asked(), 0);
    let done = app.alice.found_batch(&id).await;
    assert_eq!(done["request_counts"]["failed"], 1);
    let lines = app.alice.lines(&done, "error_file_id").await;
    assert_eq!(ids(&lines), ["request-1"]);
    assert_eq!(lines[0]["response"]["status_code"], 429);
    let error = &lines[0]["response"]["body"]["error"];
    assert_eq!(error["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn answers_that_do_not_fit_fail_the_batch_and_leave_nothing() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["ok", "missing"]).await;
    let used = stored_bytes(&app).await;
    let little = Quotas {
        max_storage_bytes: Some(used + 300),
        ..Quotas::default()
    };
    limit(&app, little).await;
    let runner = runner(&app, &stand_in, PACE).await;
    while take_turn(&runner).await {}
    let failed = app.alice.found_batch(&id).await;
    assert_eq!(answered(&failed), ("failed", &json!(1)));
    assert_eq!(failed["output_file_id"], Value::Null);
    let error = &failed["errors"]["data"][0];
    assert_eq!(error["code"], "insufficient_quota");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("max_storage_bytes"), "{message}");
    assert_eq!(stored_bytes(&app).await, used);
    // The input is all that there is.
    assert_eq!(app.object_keys().await.len(), 1);

    let none = Quotas {
        max_storage_bytes: Some(used),
        ..Quotas::default()
    };
    let asked = stand_in.n_asked();
    let input = failed["input_file_id"].as_str().unwrap();
    let again = app
        .alice
        .post("/v1/batches", &super::request(input))
        .await
        .ok();
    limit(&app, none).await;
    while take_turn(&runner).await {}
    let failed = app.alice.found_batch(again["id"].as_str().unwrap()).await;
    assert_eq!(failed["errors"]["data"][0]["code"], "insufficient_quota");
    assert_eq!(stand_in.n_asked(), asked, "nothing is answered in vain");
}

#[tokio::test]
async fn answers_that_fit_count_as_files_do() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["ok", "missing"]).await;
    let used = stored_bytes(&app).await;
    let much = Quotas {
        max_storage_bytes: Some(used + 10_000),
        ..Quotas::default()
    };
    limit(&app, much).await;
    while take_turn(&runner(&app, &stand_in, PACE).await).await {}
    let done = app.alice.found_batch(&id).await;
    assert_eq!(answered(&done), ("completed", &json!(1)));
    let mut files = 0;
    for field in ["output_file_id", "error_file_id"] {
        let path = format!("/v1/files/{}", done[field].as_str().unwrap());
        files += app.alice.get(&path).await.ok()["bytes"].as_u64().unwrap();
    }
    assert_eq!(stored_bytes(&app).await, used + files);
}

//! Turns: one request generates, some wait, the rest is turned away; who leaves makes room.

use inference::Limits;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{BASE, TestServer, greedy, with};

const ONE_TURN: fn() -> Limits = || Limits {
    concurrency: 1,
    queue_depth: 1,
    ..Limits::default()
};

/// Minutes of work, unless it is cancelled.
fn endless() -> Value {
    with(
        greedy(BASE, 1),
        json!({"n": 128, "max_tokens": null, "stream": true}),
    )
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_client_that_leaves_its_stream_frees_its_turn(pool: PgPool) {
    let server = TestServer::start_with(pool, ONE_TURN()).await;
    let mut stream = server.ask(&endless()).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    assert!((server.metric("attune_inference_running").await - 1.0).abs() < f64::EPSILON);
    drop(stream);
    server.answer(&greedy(BASE, 1)).await;
    assert!(server.metric("attune_inference_cancelled_total").await >= 1.0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_client_that_stops_waiting_for_its_answer_frees_its_turn(pool: PgPool) {
    let server = TestServer::start_with(pool, ONE_TURN()).await;
    let blocking = server
        .ask(&with(endless(), json!({"stream": false})))
        .send();
    let waiting = tokio::spawn(blocking);
    server.until("attune_inference_running", 1.0).await;
    waiting.abort();
    server.answer(&greedy(BASE, 1)).await;
    assert!(server.metric("attune_inference_cancelled_total").await >= 1.0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_full_queue_turns_away_with_a_time_to_come_back(pool: PgPool) {
    let server = TestServer::start_with(pool, ONE_TURN()).await;
    let running = server.ask(&endless()).send().await.unwrap();
    let waiting = tokio::spawn(server.ask(&endless()).send());
    server.until("attune_inference_waiting", 1.0).await;

    let turned_away = server.ask(&greedy(BASE, 1)).send().await.unwrap();
    assert_eq!(turned_away.status(), 503);
    assert!(turned_away.headers().contains_key("retry-after"));
    let text = turned_away.text().await.unwrap();
    assert!(text.contains("\"code\":\"server_is_overloaded\""), "{text}");

    drop(running);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
}

//! Streaming: the same answer in pieces.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{BASE, TestServer, content, greedy, with};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_stream_is_the_blocking_answer_in_pieces(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let request = with(
        greedy(BASE, 40),
        json!({"temperature": 1.0, "seed": 11, "logprobs": true}),
    );
    let whole = server.answer(&request).await;
    let chunks = server.chunks(&with(request, json!({"stream": true}))).await;

    let deltas = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
    let text: String = deltas
        .filter_map(|delta| delta["content"].as_str())
        .collect();
    assert_eq!(text, content(&whole));
    let logprobs = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    let logprobs: Vec<&Value> = logprobs.flatten().collect();
    let expected = whole["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert_eq!(logprobs, expected.iter().collect::<Vec<_>>());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_stream_says_who_then_what_then_why_then_the_cost(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = server.chunks(&with(greedy(BASE, 6), options)).await;
    let first = &chunks[0]["choices"][0];
    assert_eq!(
        first["delta"],
        json!({"role": "assistant", "content": "", "refusal": null})
    );
    let [.., last, usage] = chunks.as_slice() else {
        panic!("{chunks:?}")
    };
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!(
        (&usage["choices"], &usage["usage"]["completion_tokens"]),
        (&json!([]), &json!(6))
    );
    for chunk in &chunks[..chunks.len() - 1] {
        assert_eq!(
            (&chunk["id"], chunk.get("usage")),
            (&usage["id"], Some(&Value::Null))
        );
        assert_eq!(chunk["object"], "chat.completion.chunk");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn choices_are_streamed_one_after_the_other(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let request = with(greedy(BASE, 4), json!({"n": 2, "stream": true}));
    let chunks = server.chunks(&request).await;
    let finished = chunks
        .iter()
        .filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null());
    let indexes: Vec<_> = finished
        .map(|chunk| &chunk["choices"][0]["index"])
        .collect();
    assert_eq!(indexes, [0, 1]);
}

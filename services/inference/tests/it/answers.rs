//! What an answer says, and when it ends.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{BASE, TestServer, content, greedy, with};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_seed_repeats_and_another_one_differs(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let seeded = |seed| {
        with(
            greedy(BASE, 30),
            json!({"temperature": 1.2, "top_p": 0.95, "seed": seed}),
        )
    };
    let first = server.answer(&seeded(-5)).await;
    assert_eq!(content(&server.answer(&seeded(-5)).await), content(&first));
    assert_ne!(content(&server.answer(&seeded(6)).await), content(&first));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_answer_is_as_long_as_asked_and_says_what_it_cost(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let answer = server.answer(&greedy(BASE, 7)).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], BASE);
    assert_eq!(answer["system_fingerprint"], "fp_f1e2d3c4b5");
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["logprobs"]),
        (&json!("length"), &Value::Null)
    );
    let usage = &answer["usage"];
    assert_eq!(usage["completion_tokens"], 7);
    let total = usage["prompt_tokens"].as_u64().unwrap() + 7;
    assert!(total > 7 && usage["total_tokens"] == total, "{usage}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn without_a_limit_the_context_is_filled(pool: PgPool) {
    let server = TestServer::start(pool).await;
    for unlimited in [json!(null), json!(1_000_000)] {
        let request = with(greedy(BASE, 1), json!({"max_tokens": unlimited}));
        let answer = server.answer(&request).await;
        assert_eq!(answer["usage"]["total_tokens"], 512);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_prompt_that_fills_the_context_is_refused(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let long = json!([{"role": "user", "content": "x y ".repeat(600)}]);
    for stream in [false, true] {
        let request = with(greedy(BASE, 1), json!({"messages": long, "stream": stream}));
        let (status, error) = server.refusal(server.owner, &request).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("context_length_exceeded"))
        );
        assert_eq!(error["param"], "messages");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_answer_ends_before_a_stop_sequence_that_spans_tokens(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let free = server.answer(&greedy(BASE, 40)).await;
    let free = content(&free);
    // Any three neighbours: the tiny model's tokens are one or two characters long.
    let start = free.char_indices().nth(9).unwrap().0;
    let stop: String = free[start..].chars().take(3).collect();
    let expected = &free[..free.find(&stop).unwrap()];

    let request = with(greedy(BASE, 40), json!({"stop": ["never said", stop]}));
    let answer = server.answer(&request).await;
    assert_eq!(content(&answer), expected);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() < 40);

    let chunks = server.chunks(&with(request, json!({"stream": true}))).await;
    let deltas = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(deltas.collect::<String>(), expected);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_end_of_turn_token_ends_an_answer(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let request = with(greedy(BASE, 40), json!({"logit_bias": {"2": 100}}));
    let answer = server.answer(&request).await;
    assert_eq!(content(&answer), "");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 1);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn several_choices_differ_and_are_counted_together(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let request = with(
        greedy(BASE, 12),
        json!({"temperature": 1.5, "seed": 1, "n": 3}),
    );
    let answer = server.answer(&request).await;
    let choices = answer["choices"].as_array().unwrap();
    let texts: Vec<_> = choices
        .iter()
        .map(|choice| &choice["message"]["content"])
        .collect();
    assert_eq!(
        choices
            .iter()
            .map(|choice| &choice["index"])
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
    assert_eq!(answer["usage"]["completion_tokens"], 36);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn each_token_comes_with_its_probability_when_asked(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let request = with(
        greedy(BASE, 5),
        json!({"logprobs": true, "top_logprobs": 3}),
    );
    let answer = server.answer(&request).await;
    let tokens = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert_eq!(tokens.len(), 5);
    for token in tokens {
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        // Greedy: the chosen token is the likeliest.
        assert_eq!(token["top_logprobs"][0]["token"], token["token"]);
    }
}

//! Graders over HTTP, their judges asked at a stand-in for the inference service.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Client, TestApp};

/// A judge whose opinion is in its name; it checks that it is asked in a project's name.
async fn stand_in(headers: HeaderMap, Json(request): Json<Value>) -> Response {
    assert!(headers.contains_key("x-attune-project"));
    let model = request["model"].as_str().unwrap();
    match model {
        "missing" => {
            let error = json!({"error": {"message": "There is no model `missing` in this project."}});
            (StatusCode::NOT_FOUND, Json(error)).into_response()
        }
        "broken" => (StatusCode::INTERNAL_SERVER_ERROR, "a secret").into_response(),
        _ => Json(json!({
            "model": model,
            "choices": [{"message": {"role": "assistant", "content": model}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        }))
        .into_response(),
    }
}

async fn start() -> TestApp {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let service = axum::Router::new().route("/v1/chat/completions", post(stand_in));
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    TestApp::start_with_inference(&url).await
}

fn string_check() -> Value {
    json!({"type": "string_check", "name": "same", "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
           "operation": "eq"})
}

fn judge(opinion: &str) -> Value {
    let input = json!([{"role": "user", "content": "Rate {{sample.output_text}}"}]);
    json!({"type": "score_model", "name": "judge", "model": opinion, "input": input})
}

async fn run(client: &Client, grader: Value) -> Value {
    let body = json!({"grader": grader, "item": {"answer": "yes"}, "model_sample": "yes"});
    client
        .post("/v1/fine_tuning/alpha/graders/run", &body)
        .await
        .ok()
}

#[tokio::test]
async fn a_run_has_every_field_of_openais_answer() {
    let app = start().await;
    let graders = json!({"same": string_check(), "judge": judge("0.5")});
    let multi = json!({"type": "multi", "name": "both", "graders": graders, "calculate_output": "same * judge"});
    let mut answer = run(&app.alice, multi).await;
    assert!(answer["metadata"]["execution_time"].take().is_number());
    assert_eq!(
        answer,
        json!({
            "reward": 0.5,
            "sub_rewards": {"same": 1.0, "judge": 0.5},
            "model_grader_token_usage_per_model": {
                "0.5": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
            },
            "metadata": {
                "name": "both",
                "type": "multi",
                "execution_time": null,
                "scores": {"same": 1.0, "judge": 0.5},
                "token_usage": 10,
                "sampled_model_name": "0.5",
                "attune": {"errors": []},
                "errors": {
                    "formula_parse_error": false,
                    "sample_parse_error": false,
                    "truncated_observation_error": false,
                    "unresponsive_reward_error": false,
                    "invalid_variable_error": false,
                    "other_error": false,
                    "python_grader_server_error": false,
                    "python_grader_server_error_type": null,
                    "python_grader_runtime_error": false,
                    "python_grader_runtime_error_details": null,
                    "model_grader_server_error": false,
                    "model_grader_refusal_error": false,
                    "model_grader_parse_error": false,
                    "model_grader_server_error_details": null,
                },
            },
        })
    );
}

#[tokio::test]
async fn a_judge_that_fails_is_a_flag() {
    let app = start().await;
    for (opinion, flag, said) in [
        ("missing", "model_grader_server_error", "There is no model"),
        ("broken", "model_grader_server_error", "said 500"),
        ("who knows", "model_grader_parse_error", "not one number"),
    ] {
        let answer = run(&app.alice, judge(opinion)).await;
        assert_eq!(answer["reward"], 0.0, "{answer}");
        let errors = answer["metadata"]["errors"].as_object().unwrap();
        assert_eq!((errors.len(), &errors[flag]), (14, &json!(true)));
        let message = answer["metadata"]["attune"]["errors"][0].as_str().unwrap();
        assert!(
            message.contains(said) && !message.contains("secret"),
            "{message}"
        );
    }
    // Nobody listens at the usual address.
    let alone = TestApp::start().await;
    let answer = run(&alone.alice, judge("m")).await;
    assert_eq!(
        answer["metadata"]["errors"]["model_grader_server_error"],
        true
    );
}

#[tokio::test]
async fn a_valid_grader_is_echoed_and_another_names_its_field() {
    let app = TestApp::start().await;
    let path = "/v1/fine_tuning/alpha/graders/validate";
    let answer = app
        .alice
        .post(path, &json!({"grader": judge("m")}))
        .await
        .ok();
    assert_eq!(answer["grader"]["range"], json!([0.0, 1.0]));
    let python =
        json!({"type": "python", "name": "p", "source": "def grade(sample, item): return 1.0"});
    let formula = json!({"type": "multi", "name": "m", "graders": string_check(), "calculate_output": "same +"});
    for (body, param, code) in [
        (json!({}), "grader", "invalid_value"),
        (json!({"grader": 3}), "grader", "invalid_value"),
        (
            json!({"grader": python}),
            "grader.type",
            "unsupported_grader",
        ),
        (
            json!({"grader": formula}),
            "grader.calculate_output",
            "invalid_value",
        ),
    ] {
        let refusal = app.alice.post(path, &body).await.refusal();
        assert_eq!(
            refusal,
            (400, Some(param.to_owned()), Some(code.to_owned()))
        );
    }
}

#[tokio::test]
async fn a_run_needs_a_sample() {
    let app = TestApp::start().await;
    for (body, param) in [
        (json!({"grader": string_check()}), "model_sample"),
        (
            json!({"grader": string_check(), "model_sample": 3}),
            "model_sample",
        ),
        (
            json!({"grader": string_check(), "model_sample": "x", "item": []}),
            "item",
        ),
    ] {
        let refusal = app
            .alice
            .post("/v1/fine_tuning/alpha/graders/run", &body)
            .await
            .refusal();
        assert_eq!((refusal.0, refusal.1.as_deref()), (400, Some(param)));
    }
}

#[tokio::test]
async fn judges_take_of_the_project_s_tokens_and_comparisons_do_not() {
    let app = start().await;
    let path = format!(
        "/v1/organization/projects/{}/rate_limits/rl-project",
        app.alice_project
    );
    // A judge is expected to take what its prompt has and as much as it may answer.
    let expected = |app: &TestApp| {
        let alice = app.alice.clone();
        async move {
            alice
                .get("/v1/models")
                .await
                .header("x-ratelimit-remaining-tokens")
                .to_owned()
        }
    };
    let limit = json!({"max_tokens_per_1_minute": 4_000});
    app.admin.post(&path, &limit).await.ok();
    run(&app.alice, judge("0.5")).await;
    run(&app.alice, string_check()).await;
    assert_eq!(expected(&app).await, "3990");
    run(&app.alice, judge("missing")).await;
    assert_eq!(expected(&app).await, "3990", "nothing was computed");

    let limit = json!({"max_tokens_per_1_minute": 20});
    app.admin.post(&path, &limit).await.ok();
    app.clock.advance(std::time::Duration::from_secs(5));
    let body = json!({"grader": judge("0.5"), "item": {}, "model_sample": "yes"});
    let refused = app
        .alice
        .post("/v1/fine_tuning/alpha/graders/run", &body)
        .await;
    assert_eq!(
        refused.refusal(),
        (429, None, Some("rate_limit_exceeded".to_owned()))
    );
    run(&app.alice, string_check()).await;
}

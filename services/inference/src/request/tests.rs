//! What a request may say, and how a refusal names its field.

use serde_json::{Value, json};

use super::*;

fn parse(extra: &Value) -> Result<ChatRequest, ChatError> {
    let mut document = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in extra.as_object().unwrap() {
        document[name] = value.clone();
    }
    ChatRequest::parse(document.to_string().as_bytes())
}

fn refused(extra: &Value) -> (String, String) {
    match parse(extra) {
        Err(ChatError::Invalid { message, param, .. }) => (param.unwrap_or_default(), message),
        other => panic!("{extra}: {other:?}"),
    }
}

#[test]
fn a_bare_request_has_openais_defaults() {
    let request = parse(&json!({"temperature": null, "nobody_knows_this": {"a": 1}})).unwrap();
    assert_eq!(
        (request.n, request.max_tokens, request.sampling.top_logprobs),
        (1, None, None)
    );
    assert_eq!((request.stream, request.stop.len()), (None, 0));
    assert!((request.sampling.temperature - 1.0).abs() < f64::EPSILON);
    assert_eq!(
        request.conversation.messages[0].content.as_deref(),
        Some("Hi")
    );
}

#[test]
fn every_field_is_read() {
    let request = parse(&json!({
        "temperature": 0, "top_p": 0.5, "n": 3, "seed": -7, "stop": ["a", "b"],
        "max_completion_tokens": 9, "frequency_penalty": -2, "presence_penalty": 2.0,
        "logit_bias": {"12": -100}, "logprobs": true, "top_logprobs": 20,
        "stream": true, "stream_options": {"include_usage": true, "include_obfuscation": false},
        "tools": [{"type": "function", "function": {"name": "f"}}], "response_format": {"type": "text"},
    }))
    .unwrap();
    assert_eq!(
        request.sampling,
        SamplingConfig {
            temperature: 0.0,
            top_p: 0.5,
            frequency_penalty: -2.0,
            presence_penalty: 2.0,
            logit_bias: HashMap::from([(12, -100.0)]),
            top_logprobs: Some(20),
            seed: 0,
        }
    );
    assert_eq!(
        (request.n, request.max_tokens, request.seed),
        (3, Some(9), Some(-7))
    );
    assert_eq!(request.stop, ["a", "b"]);
    assert_eq!(
        request.stream,
        Some(StreamOptions {
            include_usage: true
        })
    );
    assert!(request.conversation.tools.is_some());
}

#[test]
fn a_value_out_of_range_names_its_field() {
    for (name, value) in [
        ("temperature", json!(2.1)),
        ("temperature", json!("warm")),
        ("top_p", json!(-0.1)),
        ("n", json!(0)),
        ("n", json!(1.5)),
        ("n", json!(129)),
        ("seed", json!("x")),
        ("stop", json!(["a", "b", "c", "d", "e"])),
        ("stop", json!([1])),
        ("stop", json!("")),
        ("max_tokens", json!(0)),
        ("max_completion_tokens", json!(-1)),
        ("frequency_penalty", json!(3)),
        ("logit_bias", json!({"hello": 1})),
        ("logit_bias", json!({"1": 101})),
        ("top_logprobs", json!(21)),
        ("top_logprobs", json!(3)),
        ("stream", json!("yes")),
        ("stream_options", json!({})),
        ("messages", json!([])),
        ("messages", Value::Null),
        ("model", json!("")),
        ("tool_choice", json!("required")),
        (
            "tool_choice",
            json!({"type": "function", "function": {"name": "f"}}),
        ),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {}}),
        ),
        ("response_format", json!({"type": "json_object"})),
        ("modalities", json!(["text", "audio"])),
        ("functions", json!([{}])),
    ] {
        let (param, message) = refused(&json!({name: value}));
        assert_eq!(param, name, "{value}: {message}");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_message_at_fault_is_named_by_its_place() {
    let good = json!({"role": "user", "content": "Hi"});
    let (param, _) = refused(&json!({"messages": [good, {"role": "wizard", "content": "x"}]}));
    assert_eq!(param, "messages[1].role");
    let picture = json!({"type": "image_url", "image_url": {"url": "data:"}});
    let (param, message) = refused(&json!({"messages": [{"role": "user", "content": [picture]}]}));
    assert_eq!(param, "messages[0]", "{message}");
}

#[test]
fn both_names_of_max_tokens_may_agree_but_not_differ() {
    let agreeing = parse(&json!({"max_tokens": 5, "max_completion_tokens": 5})).unwrap();
    assert_eq!(agreeing.max_tokens, Some(5));
    assert_eq!(
        refused(&json!({"max_tokens": 5, "max_completion_tokens": 6})).0,
        "max_tokens"
    );
}

#[test]
fn a_forbidden_tool_is_not_shown_to_the_model() {
    let request = parse(&json!({"tools": [{"type": "function"}], "tool_choice": "none"})).unwrap();
    assert_eq!(request.conversation.tools, None);
}

#[test]
fn what_is_no_json_object_is_refused_without_a_field() {
    let deep = "[".repeat(100_000);
    for body in ["", "[]", "{\"model\": ", "null", &deep] {
        let error = ChatRequest::parse(body.as_bytes()).unwrap_err();
        assert!(
            matches!(error, ChatError::Invalid { param: None, .. }),
            "{body:.20}: {error}"
        );
    }
}

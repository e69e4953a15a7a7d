//! Chat requests and answers as the OpenAPI document shows them. The inference service is what reads and writes them.
#![expect(dead_code, reason = "these types are described, never made")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Object, Schema};

use crate::openapi::build::word;

const MAX_STOP_SEQUENCES: usize = 4;
const MAX_STOP_CHARS: usize = 1024;

/// A conversation to answer. Fields that are not named here are left alone.
#[derive(ToSchema)]
pub(crate) struct ChatRequest {
    /// A base model, a fine-tuned one, or a checkpoint.
    #[schema(min_length = 1)]
    model: String,
    #[schema(min_items = 1)]
    messages: Vec<ChatMessage>,
    /// Whether the answer comes token by token.
    stream: Option<bool>,
    /// Belongs to `stream`.
    stream_options: Option<StreamOptions>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f64>,
    /// How many answers.
    #[schema(minimum = 1, maximum = 128)]
    n: Option<i64>,
    /// The most tokens of one answer.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<i64>,
    /// The older name of `max_completion_tokens`.
    #[schema(minimum = 1, deprecated)]
    max_tokens: Option<i64>,
    /// The same seed and request give the same answer.
    seed: Option<i64>,
    /// An answer ends before any of these.
    #[schema(required = false, schema_with = stop)]
    stop: Option<Value>,
    /// Whether each token comes with its probability.
    logprobs: Option<bool>,
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<i64>,
    /// By a token's id, from -100 to 100.
    logit_bias: Option<BTreeMap<String, f64>>,
    /// Functions that the model may call, as its chat template shows them.
    tools: Option<Vec<Value>>,
    response_format: Option<ResponseFormat>,
}

/// What somebody said.
#[derive(ToSchema)]
pub(crate) struct ChatMessage {
    #[schema(schema_with = role)]
    role: String,
    /// A text, or parts of it.
    #[schema(required = false)]
    content: Value,
}

#[derive(ToSchema)]
pub(crate) struct StreamOptions {
    /// Whether a last chunk says what the request cost.
    include_usage: Option<bool>,
}

#[derive(ToSchema)]
pub(crate) struct ResponseFormat {
    #[schema(schema_with = text_format)]
    r#type: String,
}

/// An answer. As server-sent events, each is a `chat.completion.chunk`, and the last line is `[DONE]`.
#[derive(ToSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    #[schema(schema_with = completion)]
    object: String,
    created: i64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: ChatUsage,
    system_fingerprint: String,
}

#[derive(ToSchema)]
pub(crate) struct ChatChoice {
    index: u64,
    message: ChatAnswer,
    #[schema(required)]
    logprobs: Option<Object>,
    #[schema(schema_with = finish_reason)]
    finish_reason: String,
}

#[derive(ToSchema)]
pub(crate) struct ChatAnswer {
    #[schema(schema_with = assistant)]
    role: String,
    content: String,
    #[schema(required)]
    refusal: Option<String>,
}

/// What the request cost.
#[derive(ToSchema)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
pub(crate) struct ChatUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

fn stop() -> Schema {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_STOP_CHARS))
        .build();
    AnyOfBuilder::new()
        .item(text.clone())
        .item(
            ArrayBuilder::new()
                .items(text)
                .max_items(Some(MAX_STOP_SEQUENCES)),
        )
        .item(Object::with_type(Type::Null))
        .into()
}

fn role() -> Object {
    word(&[
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "function",
    ])
}

fn text_format() -> Object {
    word(&["text"])
}

fn completion() -> Object {
    word(&["chat.completion"])
}

fn finish_reason() -> Object {
    word(&["stop", "length"])
}

fn assistant() -> Object {
    word(&["assistant"])
}

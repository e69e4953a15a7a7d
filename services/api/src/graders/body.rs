//! Graders as the OpenAPI document shows them. `grading` is what reads them.
#![expect(dead_code, reason = "these types are described, never made")]

use std::collections::BTreeMap;

use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Object, Schema};

use crate::openapi::build::{nullable, word, word_or_null};

pub(super) const OPERATIONS: [&str; 4] = ["eq", "ne", "like", "ilike"];
pub(super) const METRICS: [&str; 11] = [
    "cosine",
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
];
pub(super) const ROLES: [&str; 4] = ["user", "assistant", "system", "developer"];
pub(super) const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// A grader, and the sample that it is tried on.
#[derive(ToSchema)]
#[schema(as = RunGraderRequest, example = json!({
    "grader": {"type": "string_check", "name": "same", "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
               "operation": "eq"},
    "item": {"answer": "42"},
    "model_sample": "42",
}))]
pub(crate) struct GraderToRun {
    grader: Grader,
    /// What templates call `item`: a row of a dataset.
    #[schema(required = false, schema_with = object_or_null)]
    item: Option<BTreeMap<String, String>>,
    /// What the model said; templates call it `sample`.
    model_sample: String,
}

/// A grader to look at.
#[derive(ToSchema)]
#[schema(as = ValidateGraderRequest)]
pub(crate) struct GraderToValidate {
    grader: Grader,
}

/// `type` says which one it is.
#[derive(ToSchema)]
#[serde(untagged)]
enum Grader {
    StringCheck(StringCheck),
    TextSimilarity(TextSimilarity),
    ScoreModel(ScoreModel),
    Multi(Multi),
}

/// One of several graders, whose reward the formula of a `multi` takes up.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = GraderOfMulti)]
enum Part {
    StringCheck(StringCheck),
    TextSimilarity(TextSimilarity),
    ScoreModel(ScoreModel),
    LabelModel(LabelModel),
}

/// 1 if the comparison holds, else 0.
#[derive(ToSchema)]
#[schema(as = GraderStringCheck)]
struct StringCheck {
    #[schema(schema_with = string_check)]
    r#type: String,
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// A template.
    input: String,
    /// A template.
    reference: String,
    #[schema(schema_with = operation)]
    operation: String,
}

/// From 0 to 1: how alike two texts are.
#[derive(ToSchema)]
#[schema(as = GraderTextSimilarity)]
struct TextSimilarity {
    #[schema(schema_with = text_similarity)]
    r#type: String,
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// A template.
    input: String,
    /// A template.
    reference: String,
    #[schema(schema_with = metric)]
    evaluation_metric: String,
}

/// The number that a model says.
#[derive(ToSchema)]
#[schema(as = GraderScoreModel)]
struct ScoreModel {
    #[schema(schema_with = score_model)]
    r#type: String,
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// Of `GET /v1/models`.
    #[schema(min_length = 1)]
    model: String,
    #[schema(min_items = 1, max_items = 64)]
    input: Vec<Message>,
    sampling_params: Option<Sampling>,
    /// The lowest and the highest number; 0 and 1 unless set.
    #[schema(required = false, schema_with = range)]
    range: Option<[f64; 2]>,
}

/// 1 if a model says one of the good labels, else 0.
#[derive(ToSchema)]
#[schema(as = GraderLabelModel)]
struct LabelModel {
    #[schema(schema_with = label_model)]
    r#type: String,
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// Of `GET /v1/models`.
    #[schema(min_length = 1)]
    model: String,
    #[schema(min_items = 1, max_items = 64)]
    input: Vec<Message>,
    /// What the model may say.
    #[schema(min_items = 1, max_items = 64)]
    labels: Vec<String>,
    /// Those of them that are good.
    #[schema(min_items = 1, max_items = 64)]
    passing_labels: Vec<String>,
}

/// Several graders, and a formula over their rewards.
#[derive(ToSchema)]
#[schema(as = GraderMulti)]
struct Multi {
    #[schema(schema_with = multi)]
    r#type: String,
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    graders: Parts,
    /// Arithmetic over the graders' names, such as `0.3 * style + 0.7 * truth`.
    calculate_output: String,
}

/// By the names that the formula uses; of a list, or of a grader alone, that is its own name.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = GradersOfMulti)]
enum Parts {
    Named(BTreeMap<String, Part>),
    Listed(Vec<Part>),
    Alone(Part),
}

/// What a judge is told.
#[derive(ToSchema)]
#[schema(as = GraderMessage)]
struct Message {
    #[schema(schema_with = role)]
    role: String,
    content: Content,
}

/// A template, or several that are joined by newlines.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = GraderMessageContent)]
enum Content {
    Text(String),
    Part(Text),
    Parts(Vec<TextOrPart>),
}

#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = GraderMessagePart)]
enum TextOrPart {
    Text(String),
    Part(Text),
}

#[derive(ToSchema)]
#[schema(as = GraderMessageText)]
struct Text {
    #[schema(schema_with = text_type)]
    r#type: String,
    text: String,
}

/// How a judge's answer is drawn.
#[derive(ToSchema)]
#[schema(as = GraderSampling)]
struct Sampling {
    seed: Option<i64>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(minimum = 1)]
    max_completions_tokens: Option<u64>,
    #[schema(required = false, schema_with = effort)]
    reasoning_effort: Option<String>,
}

fn string_check() -> Object {
    word(&["string_check"])
}

fn text_similarity() -> Object {
    word(&["text_similarity"])
}

fn score_model() -> Object {
    word(&["score_model"])
}

fn label_model() -> Object {
    word(&["label_model"])
}

fn multi() -> Object {
    word(&["multi"])
}

fn operation() -> Object {
    word(&OPERATIONS)
}

fn metric() -> Object {
    word(&METRICS)
}

fn role() -> Object {
    word(&ROLES)
}

fn effort() -> Object {
    word_or_null(&EFFORTS)
}

fn text_type() -> Object {
    word(&["input_text", "output_text", "text"])
}

fn range() -> Schema {
    let numbers = ArrayBuilder::new()
        .items(Object::with_type(Type::Number))
        .min_items(Some(2))
        .max_items(Some(2));
    nullable(numbers).into()
}

fn object_or_null() -> Schema {
    nullable(ObjectBuilder::new().schema_type(Type::Object)).into()
}

#[cfg(test)]
mod tests {
    use grading::Grader;
    use serde_json::{Value, json};

    use super::*;

    fn reads(grader: &Value) -> bool {
        Grader::read("grader", grader).is_ok()
    }

    #[test]
    fn every_word_that_is_described_is_read() {
        let mut graders = Vec::new();
        for operation in OPERATIONS {
            graders.push(json!({"type": "string_check", "name": "g", "input": "a", "reference": "b", "operation": operation}));
        }
        for metric in METRICS {
            graders.push(
                json!({"type": "text_similarity", "name": "g", "input": "a", "reference": "b", "evaluation_metric": metric}),
            );
        }
        let judge = json!({"type": "score_model", "name": "g", "model": "m", "input": [{"role": "user", "content": "a"}]});
        for role in ROLES {
            let mut judge = judge.clone();
            judge["input"][0]["role"] = role.into();
            graders.push(judge);
        }
        for effort in EFFORTS {
            let mut judge = judge.clone();
            judge["sampling_params"] = json!({"reasoning_effort": effort});
            graders.push(judge);
        }
        for grader in graders {
            assert!(reads(&grader), "{grader}");
        }
        let text = json!({"type": "text", "text": "a"});
        for content in [json!("a"), text.clone(), json!(["a", text])] {
            let mut judge = judge.clone();
            judge["input"][0]["content"] = content;
            let parts = json!([{"type": "label_model", "name": "g", "model": "m", "input": judge["input"], "labels": ["x"],
                                "passing_labels": ["x"]}]);
            for graders in [parts.clone(), parts[0].clone(), json!({"g": parts[0]})] {
                let multi = json!({"type": "multi", "name": "m", "graders": graders, "calculate_output": "g"});
                assert!(reads(&multi), "{multi}");
            }
        }
    }
}

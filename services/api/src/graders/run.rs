//! `POST /v1/fine_tuning/alpha/graders/run`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use domain::Scope;
use grading::{Answer, Flags, Grader, Grading, Question, Sample, Usage};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{ask, read};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::throttle::{self, TokenHold};

/// What a grader gave for one sample.
#[derive(Debug, Serialize, ToSchema)]
pub struct GraderRun {
    /// 0 if anything failed.
    reward: f64,
    metadata: RunMetadata,
    /// The rewards of the single graders of a `multi`.
    sub_rewards: BTreeMap<String, f64>,
    #[schema(value_type = BTreeMap<String, TokenUsage>)]
    model_grader_token_usage_per_model: BTreeMap<String, Usage>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RunMetadata {
    name: String,
    r#type: &'static str,
    #[schema(value_type = GraderErrors)]
    errors: Flags,
    /// Seconds.
    execution_time: f64,
    /// Rewards by the name of the single grader.
    scores: BTreeMap<String, f64>,
    #[schema(required)]
    token_usage: Option<u64>,
    #[schema(required)]
    sampled_model_name: Option<String>,
    attune: Explanations,
}

/// What OpenAI's answer has no place for.
#[derive(Debug, Serialize, ToSchema)]
struct Explanations {
    /// What failed, in sentences. Each begins with the name of the grader.
    errors: Vec<String>,
}

/// Tokens that one judge took.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: `grading` writes it")]
#[expect(clippy::struct_field_names, reason = "OpenAI's words")]
struct TokenUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

/// All fourteen are always there.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: `grading` writes it")]
#[expect(clippy::struct_excessive_bools, reason = "OpenAI's shape")]
struct GraderErrors {
    formula_parse_error: bool,
    sample_parse_error: bool,
    truncated_observation_error: bool,
    unresponsive_reward_error: bool,
    invalid_variable_error: bool,
    other_error: bool,
    python_grader_server_error: bool,
    #[schema(required)]
    python_grader_server_error_type: Option<String>,
    python_grader_runtime_error: bool,
    #[schema(required)]
    python_grader_runtime_error_details: Option<String>,
    model_grader_server_error: bool,
    model_grader_refusal_error: bool,
    model_grader_parse_error: bool,
    #[schema(required)]
    model_grader_server_error_details: Option<String>,
}

/// Run a grader on one sample. A grader that fails is answered like one that does not, with reward 0 and a flag.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/alpha/graders/run",
    tag = "Graders",
    request_body(content = super::body::GraderToRun),
    responses((status = 200, body = GraderRun, description = "The reward, and what failed if it is 0."))
)]
pub async fn run_grader(
    State(state): State<AppState>,
    tenant: Tenant,
    JsonBody(mut body): JsonBody,
) -> Result<Json<GraderRun>, ApiError> {
    let grader = read(&body)?;
    let (item, output) = (item(&mut body)?, sample(&mut body)?);
    if grader.asks_models() {
        // Before the questions are made: they may be long.
        tenant.needs(Scope::Inference)?;
    }
    let began = state.clock.now();
    let questions = grader.questions(&Sample::new(&item, &output));
    let hold = admit(&state, &tenant, &questions)?;
    let answers = ask::answers(&state.inference, &tenant, questions).await;
    let (grader, grading) = graded(grader, item, output, answers).await?;
    if let Some(hold) = hold {
        hold.settle(grading.total_tokens().unwrap_or(0));
    }
    let execution_time = (state.clock.now() - began).as_seconds_f64().max(0.0);
    Ok(Json(shown(&grader, grading, execution_time)))
}

/// Whether models may be asked: it takes what a chat takes, the project's tokens, of all judges at once.
fn admit(
    state: &AppState,
    tenant: &Tenant,
    questions: &[Option<Question>],
) -> Result<Option<TokenHold>, ApiError> {
    let mut expected = None;
    for question in questions.iter().flatten() {
        let tokens = throttle::estimate(&question.request);
        expected = Some(tokens.saturating_add(expected.unwrap_or(0)));
    }
    let Some(expected) = expected else {
        return Ok(None);
    };
    state.throttle.hold_tokens(tenant.project_id, expected)
}

/// Comparing long texts takes a good part of a second, which other requests should not wait for.
async fn graded(
    grader: Grader,
    item: Value,
    output: String,
    answers: Vec<Option<Answer>>,
) -> Result<(Grader, Grading), ApiError> {
    tokio::task::spawn_blocking(move || {
        let grading = grader.grade(&Sample::new(&item, &output), answers);
        (grader, grading)
    })
    .await
    .map_err(ApiError::internal)
}

fn item(body: &mut Value) -> Result<Value, ApiError> {
    match body["item"].take() {
        Value::Null => Ok(Value::Object(Map::new())),
        item @ Value::Object(_) => Ok(item),
        _ => Err(ApiError::invalid("item", "`item` must be an object.")),
    }
}

fn sample(body: &mut Value) -> Result<String, ApiError> {
    match body["model_sample"].take() {
        Value::String(text) => Ok(text),
        _ => Err(ApiError::invalid(
            "model_sample",
            "`model_sample` must be a text: what the model said.",
        )),
    }
}

fn shown(grader: &Grader, grading: Grading, execution_time: f64) -> GraderRun {
    let scores: BTreeMap<String, f64> = grading
        .scored
        .iter()
        .map(|scored| (scored.name.clone(), scored.reward))
        .collect();
    let is_multi = grader.kind() == "multi";
    GraderRun {
        reward: grading.reward,
        sub_rewards: if is_multi {
            scores.clone()
        } else {
            BTreeMap::new()
        },
        metadata: RunMetadata {
            name: grader.name.clone(),
            r#type: grader.kind(),
            execution_time,
            scores,
            token_usage: grading.total_tokens(),
            sampled_model_name: grading.sampled_model_name,
            attune: Explanations {
                errors: grading.messages,
            },
            errors: grading.flags,
        },
        model_grader_token_usage_per_model: grading.usage,
    }
}

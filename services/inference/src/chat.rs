//! `POST /v1/chat/completions`: parse, resolve, queue, load, generate, answer.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::ProjectId;
use lm::sample::SamplingConfig;
use store::models::ResolvedModel;
use text::TextError;
use time::OffsetDateTime;

use crate::cache::{LoadedBase, Tuned};
use crate::caller::InternalCaller;
use crate::engine::{Event, Generation, GenerationJob};
use crate::error::ChatError;
use crate::request::ChatRequest;
use crate::request_id::RequestId;
use crate::resolve::resolve;
use crate::response::{
    AssistantMessage, ChatCompletion, Choice, Envelope, FinishReason, Logprobs, TokenLogprob, Usage,
};
use crate::server::AppState;
use crate::{random, sse};

/// Answers a conversation with one of the project's models.
pub(crate) async fn chat_completions(
    State(state): State<AppState>,
    caller: InternalCaller,
    Extension(request_id): Extension<RequestId>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let response = match answer(&state, caller.project_id, &request_id, body).await {
        Ok(response) => response,
        Err(error) => error.respond(request_id.as_str()),
    };
    let status = response.status().as_str().to_owned();
    metrics::counter!("attune_inference_requests_total", "status" => status).increment(1);
    response
}

async fn answer(
    state: &AppState,
    project_id: ProjectId,
    request_id: &RequestId,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ChatError> {
    let request = ChatRequest::parse(&body.map_err(|rejection| unreadable(&rejection))?)?;
    let resolved = resolve(&state.store, project_id, &request.model).await?;
    let place = state.engine.admit()?;

    let envelope = envelope(state, &request, &resolved);
    let model = state.cache.base(&resolved.base).await?;
    let Tuned { model, adapter } = match &resolved.tuned {
        Some(tuned) => state.cache.tuned(model, project_id, tuned).await?,
        None => Tuned {
            model,
            adapter: None,
        },
    };
    let (stream, n, with_logprobs) = (
        request.stream,
        request.n,
        request.sampling.top_logprobs.is_some(),
    );
    let now = state.clock.now();
    let prepare = move || prepare(request, model, now);
    let job = tokio::task::spawn_blocking(prepare)
        .await
        .context("reading the messages")??;
    let job = GenerationJob { adapter, ..job };
    let prompt_tokens = job.prompt.len();
    metrics::counter!("attune_inference_prompt_tokens_total").increment(prompt_tokens as u64);

    let generation = state.engine.start(place, job).await?;
    if let Some(options) = stream {
        let shape = sse::Shape {
            envelope,
            options,
            prompt_tokens,
            n,
            with_logprobs,
        };
        return Ok(sse::respond(generation, shape, request_id.clone()));
    }
    let (choices, completion_tokens) = collect(generation, n, with_logprobs).await?;
    let usage = Usage::new(prompt_tokens, completion_tokens);
    Ok(Json(ChatCompletion::new(envelope, choices, usage)).into_response())
}

fn envelope(state: &AppState, request: &ChatRequest, resolved: &ResolvedModel) -> Envelope {
    let fingerprint: String = resolved.base.fingerprint.chars().take(10).collect();
    Envelope {
        id: format!("chatcmpl-{}", random::hex_digits()),
        created: state.clock.now().unix_timestamp(),
        model: request.model.clone(),
        system_fingerprint: format!("fp_{fingerprint}"),
    }
}

/// Renders and tokenizes the messages, and finds the room that is left for the answer. Slow for long conversations.
fn prepare(
    request: ChatRequest,
    base: Arc<LoadedBase>,
    now: OffsetDateTime,
) -> Result<GenerationJob, ChatError> {
    let prompt = base
        .text
        .clone()
        .with_now(now)
        .prompt_ids(&request.conversation)
        .map_err(unrenderable)?;
    let room = base.context_length.saturating_sub(prompt.len());
    if room == 0 {
        let (context_length, prompt_tokens) = (base.context_length, prompt.len());
        return Err(ChatError::ContextLengthExceeded {
            context_length,
            prompt_tokens,
        });
    }
    if prompt.is_empty() {
        return Err(ChatError::invalid(
            "messages",
            "`messages` renders to nothing.",
        ));
    }
    let seed = request.seed.map_or_else(random::seed, i64::cast_unsigned);
    Ok(GenerationJob {
        base,
        adapter: None,
        prompt,
        sampling: SamplingConfig {
            seed,
            ..request.sampling
        },
        n: request.n,
        stop: request.stop,
        max_tokens: request.max_tokens.unwrap_or(room).min(room),
    })
}

/// Waits for all choices.
async fn collect(
    mut generation: Generation,
    n: usize,
    with_logprobs: bool,
) -> Result<(Vec<Choice>, usize), ChatError> {
    let (mut choices, mut completion_tokens) = (Vec::with_capacity(n), 0);
    let (mut content, mut tokens) = (String::new(), Vec::<TokenLogprob>::new());
    while let Some(event) = generation.next().await {
        match event {
            Event::Text { text, logprobs, .. } => {
                content.push_str(&text);
                tokens.extend(logprobs);
            }
            Event::Finished {
                index,
                reason,
                n_tokens,
            } => {
                completion_tokens += n_tokens;
                let (content, tokens) = (std::mem::take(&mut content), std::mem::take(&mut tokens));
                choices.push(choice(
                    index,
                    content,
                    Logprobs::of(with_logprobs, tokens),
                    reason,
                ));
            }
            Event::Failed(error) => return Err(error),
        }
    }
    if choices.len() < n {
        return Err(broke_off());
    }
    Ok((choices, completion_tokens))
}

fn choice(
    index: usize,
    content: String,
    logprobs: Option<Logprobs>,
    finish_reason: FinishReason,
) -> Choice {
    Choice {
        index,
        message: AssistantMessage::new(content),
        logprobs,
        finish_reason,
    }
}

/// Generation ended without a word: its thread panicked, and its log has the reason.
pub(crate) fn broke_off() -> ChatError {
    ChatError::Internal(anyhow!("generation broke off"))
}

fn unreadable(rejection: &BytesRejection) -> ChatError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ChatError::BodyTooLarge;
    }
    ChatError::Invalid {
        message: "The request body could not be read.".to_owned(),
        param: None,
        code: None,
    }
}

/// What the template refuses is the conversation's fault; the rest is the installation's.
fn unrenderable(error: TextError) -> ChatError {
    match error {
        TextError::TemplateRefused(_)
        | TextError::TemplateTooExpensive { .. }
        | TextError::Template(_)
        | TextError::Encode(_) => {
            let message = format!("{:#}.", anyhow!(error));
            ChatError::invalid("messages", message)
        }
        error => ChatError::Internal(error.into()),
    }
}

//! OpenAI's chat completion request: which fields count, what they may say.
//!
//! Keys nobody knows are tolerated, since clients send many. What we know and cannot do is refused by name, because an
//! answer that silently ignores it would be wrong.

mod fields;

use std::collections::HashMap;

use lm::sample::SamplingConfig;
use serde_json::{Map, Value};
use text::{Conversation, Message, ROLES};

use crate::error::ChatError;
use fields::{Fields, wrong_type};

/// OpenAI's bounds.
const MAX_CHOICES: usize = 128;
const MAX_STOP_SEQUENCES: usize = 4;
const MAX_TOP_LOGPROBS: usize = 20;
const MAX_LOGIT_BIAS: f64 = 100.0;
/// Beyond this a stop sequence is a mistake, and searching for it costs.
const MAX_STOP_BYTES: usize = 1024;

/// What a client asks for, checked.
#[derive(Debug, Clone)]
pub(crate) struct ChatRequest {
    /// The model's name as the client wrote it.
    pub(crate) model: String,
    /// The messages and the tools, as the chat template takes them.
    pub(crate) conversation: Conversation,
    /// How to choose tokens; the seed is in `seed`.
    pub(crate) sampling: SamplingConfig,
    /// The same seed and request give the same answer. `None`: another one each time.
    pub(crate) seed: Option<i64>,
    /// How many answers.
    pub(crate) n: usize,
    /// An answer ends before any of these.
    pub(crate) stop: Vec<String>,
    /// The most tokens of one answer; `None` is what the context has room for.
    pub(crate) max_tokens: Option<usize>,
    /// `None`: one answer at the end.
    pub(crate) stream: Option<StreamOptions>,
}

/// How to stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StreamOptions {
    /// Whether a last chunk carries the usage.
    pub(crate) include_usage: bool,
}

impl ChatRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    ///
    /// [`ChatError::Invalid`] names the field at fault.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ChatError> {
        let document: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| ChatError::Invalid {
                message: format!("The request body is not a JSON object: {error}."),
                param: None,
                code: None,
            })?;
        let fields = Fields(&document);
        refuse_unsupported(&fields)?;
        Ok(Self {
            model: model(&fields)?,
            conversation: Conversation {
                messages: messages(&fields)?,
                tools: tools(&fields)?,
            },
            sampling: sampling(&fields)?,
            seed: fields.i64("seed")?,
            n: fields.count("n", 1..=MAX_CHOICES)?.unwrap_or(1),
            stop: stop(&fields)?,
            max_tokens: max_tokens(&fields)?,
            stream: stream(&fields)?,
        })
    }
}

fn model(fields: &Fields<'_>) -> Result<String, ChatError> {
    match fields.string("model")? {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(missing("model", "you must name a model")),
    }
}

fn messages(fields: &Fields<'_>) -> Result<Vec<Message>, ChatError> {
    let values = fields
        .array("messages")?
        .ok_or_else(|| missing("messages", "send at least one"))?;
    if values.is_empty() {
        return Err(ChatError::invalid(
            "messages",
            "`messages` is empty; send at least one.",
        ));
    }
    values
        .iter()
        .enumerate()
        .map(|(index, value)| message(index, value))
        .collect()
}

fn message(index: usize, value: &Value) -> Result<Message, ChatError> {
    let at = format!("messages[{index}]");
    let message: Message = serde_json::from_value(value.clone())
        .map_err(|error| ChatError::invalid(&at, format!("`{at}` is not a message: {error}.")))?;
    if !ROLES.contains(&message.role.as_str()) {
        let role: String = message.role.chars().take(40).collect();
        let reason = format!(
            "`{at}.role` is `{role}`; it must be one of {}.",
            ROLES.join(", ")
        );
        return Err(ChatError::invalid(format!("{at}.role"), reason));
    }
    Ok(message)
}

/// The tools, unless the client forbids their use.
fn tools(fields: &Fields<'_>) -> Result<Option<Value>, ChatError> {
    let tools = fields.array("tools")?.filter(|tools| !tools.is_empty());
    let choice = match fields.get("tool_choice") {
        None => "auto",
        Some(choice) => choice.as_str().unwrap_or("a certain tool"),
    };
    match choice {
        "auto" => Ok(tools.cloned().map(Value::Array)),
        "none" => Ok(None),
        _ => Err(unsupported(
            "tool_choice",
            "a tool cannot be forced yet; use `auto` or `none`",
        )),
    }
}

fn sampling(fields: &Fields<'_>) -> Result<SamplingConfig, ChatError> {
    Ok(SamplingConfig {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0),
        top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0),
        frequency_penalty: fields
            .number("frequency_penalty", -2.0..=2.0)?
            .unwrap_or(0.0),
        presence_penalty: fields
            .number("presence_penalty", -2.0..=2.0)?
            .unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
        top_logprobs: top_logprobs(fields)?,
        seed: 0,
    })
}

fn logit_bias(fields: &Fields<'_>) -> Result<HashMap<u32, f64>, ChatError> {
    let Some(entries) = fields.object("logit_bias")? else {
        return Ok(HashMap::new());
    };
    entries
        .iter()
        .map(|(token, bias)| one_bias(token, bias))
        .collect()
}

fn one_bias(token: &str, bias: &Value) -> Result<(u32, f64), ChatError> {
    let id = token.parse().map_err(|_| {
        let token: String = token.chars().take(40).collect();
        ChatError::invalid(
            "logit_bias",
            format!("`logit_bias` has the key `{token}`; keys are token ids."),
        )
    })?;
    bias.as_f64()
        .filter(|bias| bias.abs() <= MAX_LOGIT_BIAS)
        .map(|bias| (id, bias))
        .ok_or_else(|| {
            let reason = format!("`logit_bias` of token {id} must be a number from -100 to 100.");
            ChatError::invalid("logit_bias", reason)
        })
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, ChatError> {
    let sequences = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(sequence)) => vec![sequence.clone()],
        Some(Value::Array(values)) => values
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| ChatError::invalid("stop", "`stop` must hold strings only."))?,
        Some(other) => return Err(wrong_type("stop", "a string or an array of strings", other)),
    };
    if sequences.len() > MAX_STOP_SEQUENCES {
        let reason = format!(
            "`stop` has {} sequences; at most {MAX_STOP_SEQUENCES} are allowed.",
            sequences.len()
        );
        return Err(ChatError::invalid("stop", reason));
    }
    if sequences
        .iter()
        .any(|sequence| sequence.is_empty() || sequence.len() > MAX_STOP_BYTES)
    {
        let reason = format!("each sequence of `stop` must have 1 to {MAX_STOP_BYTES} bytes.");
        return Err(ChatError::invalid("stop", reason));
    }
    Ok(sequences)
}

fn max_tokens(fields: &Fields<'_>) -> Result<Option<usize>, ChatError> {
    let old = fields.count("max_tokens", 1..=usize::MAX)?;
    let new = fields.count("max_completion_tokens", 1..=usize::MAX)?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => Err(ChatError::invalid(
            "max_tokens",
            "`max_tokens` and `max_completion_tokens` mean the same; send one of them.",
        )),
        (old, new) => Ok(new.or(old)),
    }
}

/// `None`: no log probabilities; otherwise how many alternatives of each token.
fn top_logprobs(fields: &Fields<'_>) -> Result<Option<usize>, ChatError> {
    let wanted = fields.bool("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ChatError::invalid(
            "top_logprobs",
            "`top_logprobs` needs `logprobs` to be true.",
        )),
    }
}

fn stream(fields: &Fields<'_>) -> Result<Option<StreamOptions>, ChatError> {
    let wanted = fields.bool("stream")?.unwrap_or(false);
    let options = fields.object("stream_options")?;
    if !wanted {
        return match options {
            None => Ok(None),
            Some(_) => Err(ChatError::invalid(
                "stream_options",
                "`stream_options` needs `stream` to be true.",
            )),
        };
    }
    let include_usage = match options {
        Some(options) => Fields(options).bool("include_usage")?.unwrap_or(false),
        None => false,
    };
    Ok(Some(StreamOptions { include_usage }))
}

/// Refuses what would change the answer and is not there.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ChatError> {
    for (name, way_out) in [
        ("functions", "send `tools` instead"),
        ("function_call", "send `tool_choice` instead"),
        ("audio", "answers are text"),
        ("web_search_options", "there is no web search"),
    ] {
        if fields.get(name).is_some() {
            return Err(unsupported(name, way_out));
        }
    }
    if let Some(format) = fields.object("response_format")? {
        let kind = format
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if kind != "text" {
            let way_out = format!(
                "`{kind}` is not supported yet; use `text`, or a model tuned to answer in your format"
            );
            return Err(unsupported("response_format", &way_out));
        }
    }
    match fields.array("modalities")? {
        Some(modalities) if modalities.iter().any(|kind| kind != "text") => {
            Err(unsupported("modalities", "answers are text"))
        }
        _ => Ok(()),
    }
}

fn unsupported(name: &str, way_out: &str) -> ChatError {
    ChatError::Invalid {
        message: format!("`{name}`: {way_out}."),
        param: Some(name.to_owned()),
        code: Some("unsupported_value"),
    }
}

fn missing(name: &str, way_out: &str) -> ChatError {
    ChatError::Invalid {
        message: format!("`{name}` is missing: {way_out}."),
        param: Some(name.to_owned()),
        code: Some("missing_required_parameter"),
    }
}

#[cfg(test)]
mod tests;

//! One row: an object of JSON becomes a conversation that can be trained on, or an error that
//! names the field.

mod preference;

use domain::config::RowKind;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use text::{Conversation, Message, ROLES};

use crate::json::{kind_of, quoted};
use crate::{Limits, RowErrorKind};

/// A row of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Counted from 1.
    pub line: u64,
    pub conversation: Conversation,
    /// What the row says of its conversation.
    pub judgement: Judgement<Conversation>,
    /// SHA-256 of what the row says, apart from how it is written: see [`hash`].
    pub hash: [u8; 32],
}

/// What is said of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement<T> {
    /// It is to be learned.
    None,
    /// It is better than another one with the same prompt.
    BetterThan(T),
    /// It is good.
    Good,
    /// It is bad.
    Bad,
}

/// What a row of `kind` holds, checked. Keys that mean nothing here are left alone: `metadata` and
/// graders' fields live there.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn parse(
    row: Value,
    kind: RowKind,
    limits: &Limits,
) -> Result<(Conversation, Judgement<Conversation>), RowErrorKind> {
    let mut row = match row {
        Value::Object(row) => row,
        other => {
            return Err(RowErrorKind::NotAnObject {
                found: kind_of(&other),
            });
        }
    };
    match kind {
        RowKind::Chat => Ok((conversation(&mut row, limits)?, Judgement::None)),
        RowKind::Preference => preference::pair(row, limits),
        RowKind::Judged => {
            let conversation = conversation(&mut row, limits)?;
            let judgement = preference::label(&row)?;
            Ok((conversation, judgement))
        }
    }
}

/// A conversation in which there is something to learn.
fn conversation(
    row: &mut Map<String, Value>,
    limits: &Limits,
) -> Result<Conversation, RowErrorKind> {
    let messages = match row.remove("messages") {
        Some(messages) => messages,
        None if row.contains_key("prompt") => return Err(RowErrorKind::PromptCompletion),
        None if row.contains_key("input") => return Err(RowErrorKind::PreferenceRow),
        None => return Err(RowErrorKind::NoMessages),
    };
    let messages = parse_messages("messages", messages, limits)?;
    if !messages.iter().any(|message| message.role == "assistant") {
        return Err(RowErrorKind::NoAssistant);
    }
    if !messages.iter().any(Message::is_supervised) {
        return Err(RowErrorKind::NothingWeighted);
    }
    Ok(Conversation {
        messages,
        tools: tools(row)?,
    })
}

fn parse_messages(
    path: &str,
    messages: Value,
    limits: &Limits,
) -> Result<Vec<Message>, RowErrorKind> {
    let messages = match messages {
        Value::Array(messages) => messages,
        other => return Err(wrong_type(path.to_owned(), "an array", &other)),
    };
    if messages.len() > limits.max_messages {
        let (found, max) = (messages.len(), limits.max_messages);
        return Err(RowErrorKind::TooManyMessages { found, max });
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| parse_message(&format!("{path}[{index}]"), message))
        .collect()
}

/// SHA-256 over the messages and tools, with the keys of objects sorted, line ends as `\n` and the
/// space around a text dropped; without `weight`, so that the same words trained on differently
/// are still the same words.
pub(crate) fn hash(conversation: &Conversation, judgement: &Judgement<Conversation>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hash_conversation(&mut hasher, conversation);
    match judgement {
        // Nothing more, so that a row hashes as it did before rows were judged.
        Judgement::None => {}
        Judgement::BetterThan(other) => hash_conversation(&mut hasher, other),
        Judgement::Good => hasher.update(b"good"),
        Judgement::Bad => hasher.update(b"bad"),
    }
    hasher.finalize().into()
}

fn hash_conversation(hasher: &mut Sha256, conversation: &Conversation) {
    for message in &conversation.messages {
        hash_text(hasher, &message.role);
        hash_text(hasher, message.content.as_deref().unwrap_or_default());
        hash_text(hasher, message.name.as_deref().unwrap_or_default());
        hash_text(hasher, message.tool_call_id.as_deref().unwrap_or_default());
        hash_value(hasher, message.tool_calls.as_ref().unwrap_or(&Value::Null));
        hash_fields(hasher, &message.extra);
    }
    hash_value(hasher, conversation.tools.as_ref().unwrap_or(&Value::Null));
}

fn parse_message(path: &str, message: Value) -> Result<Message, RowErrorKind> {
    let mut fields = match message {
        Value::Object(fields) => fields,
        other => return Err(wrong_type(path.to_owned(), "an object", &other)),
    };
    let role = required_role(path, &mut fields)?;
    let content = fields.remove("content").unwrap_or(Value::Null);
    let content = text::content_from_json(&content).map_err(|problem| RowErrorKind::Content {
        field: format!("{path}.content"),
        problem,
    })?;
    let message = Message {
        content,
        name: optional_string(path, "name", &mut fields)?,
        tool_call_id: optional_string(path, "tool_call_id", &mut fields)?,
        weight: weight(path, &role, &mut fields)?,
        tool_calls: tool_calls(path, &mut fields)?,
        role,
        extra: fields,
    };
    check_has_something_to_say(path, &message)?;
    Ok(message)
}

fn required_role(path: &str, fields: &mut Map<String, Value>) -> Result<String, RowErrorKind> {
    let field = format!("{path}.role");
    match fields.remove("role") {
        Some(Value::String(role)) if ROLES.contains(&role.as_str()) => Ok(role),
        Some(Value::String(role)) => Err(RowErrorKind::UnknownRole {
            field,
            role: quoted(&role),
        }),
        Some(other) => Err(wrong_type(field, "a string", &other)),
        None => Err(RowErrorKind::Missing {
            field,
            expected: "system, developer, user, assistant, tool or function",
        }),
    }
}

fn optional_string(
    path: &str,
    key: &str,
    fields: &mut Map<String, Value>,
) -> Result<Option<String>, RowErrorKind> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(format!("{path}.{key}"), "a string", &other)),
    }
}

fn weight(
    path: &str,
    role: &str,
    fields: &mut Map<String, Value>,
) -> Result<Option<u8>, RowErrorKind> {
    let field = format!("{path}.weight");
    let weight = match fields.remove("weight") {
        None | Some(Value::Null) => return Ok(None),
        Some(weight) => weight,
    };
    if role != "assistant" {
        return Err(RowErrorKind::WeightElsewhere {
            field,
            role: role.to_owned(),
        });
    }
    match weight.as_u64() {
        Some(0) => Ok(Some(0)),
        Some(1) => Ok(Some(1)),
        _ => Err(RowErrorKind::Weight {
            field,
            found: quoted(&weight.to_string()),
        }),
    }
}

fn tool_calls(path: &str, fields: &mut Map<String, Value>) -> Result<Option<Value>, RowErrorKind> {
    let field = format!("{path}.tool_calls");
    let calls = match fields.remove("tool_calls") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(calls)) if calls.is_empty() => return Ok(None),
        Some(Value::Array(calls)) => calls,
        Some(other) => return Err(wrong_type(field, "an array", &other)),
    };
    for (index, call) in calls.iter().enumerate() {
        check_function(&format!("{field}[{index}].function"), call.get("function"))?;
    }
    Ok(Some(Value::Array(calls)))
}

/// `function` is `{name, arguments}`, `arguments` being JSON in a string.
fn check_function(path: &str, function: Option<&Value>) -> Result<(), RowErrorKind> {
    let string = |key: &str, expected: &'static str| {
        let field = format!("{path}.{key}");
        match function.and_then(|function| function.get(key)) {
            Some(Value::String(text)) => Ok((field, text)),
            Some(other) => Err(wrong_type(field, expected, other)),
            None => Err(RowErrorKind::Missing { field, expected }),
        }
    };
    string("name", "the function's name")?;
    let (field, arguments) = string("arguments", "a string that holds a JSON object")?;
    match crate::json::parse(arguments) {
        Ok(_) => Ok(()),
        Err(_) => Err(RowErrorKind::Arguments { field }),
    }
}

/// Only an assistant may say nothing, and only when it does something else instead.
fn check_has_something_to_say(path: &str, message: &Message) -> Result<(), RowErrorKind> {
    let acts = message.tool_calls.is_some()
        || ["function_call", "refusal"].iter().any(|key| {
            message
                .extra
                .get(*key)
                .is_some_and(|value| !value.is_null())
        });
    if message.content.is_some() || (message.role == "assistant" && acts) {
        return Ok(());
    }
    let expected = match message.role.as_str() {
        "assistant" => "a string, unless the message has `tool_calls`",
        _ => "a string or an array of text parts",
    };
    Err(RowErrorKind::Missing {
        field: format!("{path}.content"),
        expected,
    })
}

/// `tools`, or the older `functions` in the same shape.
fn tools(row: &mut Map<String, Value>) -> Result<Option<Value>, RowErrorKind> {
    let wrap = |function| serde_json::json!({"type": "function", "function": function});
    match (row.remove("tools"), row.remove("functions")) {
        (None | Some(Value::Null), None | Some(Value::Null)) => Ok(None),
        (Some(Value::Array(tools)), _) => Ok((!tools.is_empty()).then_some(Value::Array(tools))),
        (None | Some(Value::Null), Some(Value::Array(functions))) => {
            Ok(Some(functions.into_iter().map(wrap).collect()))
        }
        (None | Some(Value::Null), Some(other)) => {
            Err(wrong_type("functions".to_owned(), "an array", &other))
        }
        (Some(other), _) => Err(wrong_type("tools".to_owned(), "an array", &other)),
    }
}

fn wrong_type(field: String, expected: &'static str, found: &Value) -> RowErrorKind {
    RowErrorKind::WrongType {
        field,
        expected,
        found: kind_of(found),
    }
}

/// Every text is preceded by its length, so that no two lists of texts hash alike.
fn hash_text(hasher: &mut Sha256, text: &str) {
    let text = text.replace("\r\n", "\n");
    let text = text.trim();
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
}

fn hash_fields(hasher: &mut Sha256, fields: &Map<String, Value>) {
    let mut sorted: Vec<_> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .collect();
    sorted.sort_by_key(|(key, _)| *key);
    hasher.update((sorted.len() as u64).to_le_bytes());
    for (key, value) in sorted {
        hash_text(hasher, key);
        hash_value(hasher, value);
    }
}

fn hash_value(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::String(text) => {
            hasher.update(b"s");
            hash_text(hasher, text);
        }
        Value::Array(items) => {
            hasher.update(b"a");
            hasher.update((items.len() as u64).to_le_bytes());
            for item in items {
                hash_value(hasher, item);
            }
        }
        Value::Object(fields) => {
            hasher.update(b"o");
            hash_fields(hasher, fields);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            hasher.update(b"v");
            hash_text(hasher, &value.to_string());
        }
    }
}

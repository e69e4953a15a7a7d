//! Messages and conversations, in OpenAI's words.
//!
//! What JSON says is kept: fields this crate does not know stay in [`Message::extra`] and reach
//! the chat template. Which rows are good enough to train on is for `dataset` to decide.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The roles a message may have.
pub const ROLES: [&str; 6] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
];

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// One of [`ROLES`]; not checked here.
    pub role: String,
    /// The text. Absent on an assistant message that only calls tools.
    #[serde(default, deserialize_with = "deserialize_content")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `[{id, type: "function", function: {name, arguments}}]`, arguments being a JSON string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// 0 keeps an assistant message out of the loss; absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
    /// Everything else: `refusal`, `function_call`, `reasoning_content` and what comes later.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: Some(content.into()),
            ..Self::default()
        }
    }

    /// Whether the model learns to write this message.
    pub fn is_supervised(&self) -> bool {
        self.role == "assistant" && self.weight != Some(0)
    }
}

/// A conversation and the tools the model may call in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub messages: Vec<Message>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
}

impl Conversation {
    /// A conversation without tools.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            tools: None,
        }
    }
}

/// Why a `content` cannot be used. The texts continue a sentence that starts with the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("is {found}; it has to be a string, null, or an array of text parts")]
    NotText { found: &'static str },
    #[error("has a part {index} of type `{kind}`; only `text` parts can be used")]
    PartType { index: usize, kind: String },
    #[error(
        "has a part {index} that is no text part; write {{\"type\": \"text\", \"text\": \"…\"}}"
    )]
    NotAPart { index: usize },
}

/// Read a message's `content`: a string, null, or an array of `{type: "text", text}` parts, which
/// are joined.
///
/// # Errors
/// Anything else, images and audio included, with the reason.
pub fn content_from_json(content: &Value) -> Result<Option<String>, ContentError> {
    match content {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(parts) => {
            let texts = parts
                .iter()
                .enumerate()
                .map(|(index, part)| part_text(index, part));
            texts.collect::<Result<String, _>>().map(Some)
        }
        Value::Bool(_) => Err(ContentError::NotText { found: "a boolean" }),
        Value::Number(_) => Err(ContentError::NotText { found: "a number" }),
        Value::Object(_) => Err(ContentError::NotText { found: "an object" }),
    }
}

fn part_text(index: usize, part: &Value) -> Result<&str, ContentError> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => part
            .get("text")
            .and_then(Value::as_str)
            .ok_or(ContentError::NotAPart { index }),
        Some(kind) => Err(ContentError::PartType {
            index,
            kind: kind.chars().take(64).collect(),
        }),
        None => Err(ContentError::NotAPart { index }),
    }
}

fn deserialize_content<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    let content = Value::deserialize(input)?;
    content_from_json(&content)
        .map_err(|error| serde::de::Error::custom(format!("`content` {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_parts_are_joined() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        assert_eq!(content_from_json(&parts), Ok(Some("ab".to_owned())));
    }

    #[test]
    fn an_image_part_is_refused_by_name() {
        let row = json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]});
        let error = serde_json::from_value::<Message>(row)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`content` has a part 0 of type `image_url`"),
            "{error}"
        );
    }

    #[test]
    fn unknown_fields_survive_a_round_trip() {
        let row = json!({"role": "assistant", "content": "x", "refusal": null, "weight": 0});
        let message: Message = serde_json::from_value(row.clone()).unwrap();
        assert!(!message.is_supervised());
        assert_eq!(serde_json::to_value(&message).unwrap(), row);
    }
}

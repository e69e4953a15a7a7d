//! The chat template: Jinja as Hugging Face's `transformers` runs it, on minijinja.
//!
//! Templates are written for Python, so this file is a list of the places where minijinja has to
//! be told to behave as the reference does. A template comes from whoever published the base
//! model and messages come from strangers: every rendering has a budget of fuel.

mod python_json;
mod strftime;

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, context};
use time::OffsetDateTime;

use crate::{Conversation, Message, TextError};

/// The template used when the conversation brings no tools, or there is only one.
const DEFAULT: &str = "default";
/// Hugging Face's name for a second template, for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// Fuel for a template that does much before its first message (instructions; about 64 bytes of
/// text cost one more).
const BASE_FUEL: u64 = 100_000;
/// The budget grows with the conversation: an honest chat of 10,000 messages needs millions.
const FUEL_PER_MESSAGE: u64 = 2_000;

/// A base model's chat template, or its two.
#[derive(Clone)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and the others, as variables of the template.
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Compile `templates`, pairs of name and source.
    ///
    /// # Errors
    /// A template that does not parse, and none called `default`.
    pub(crate) fn new(
        templates: Vec<(String, String)>,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<Self, TextError> {
        let mut environment = python_environment();
        for (name, source) in templates {
            let source = without_generation_tags(&source);
            environment
                .add_template_owned(name.clone(), source)
                .map_err(|source| TextError::TemplateSyntax { name, source })?;
        }
        if environment.get_template(DEFAULT).is_err() {
            return Err(TextError::NoChatTemplate);
        }
        Ok(Self {
            environment,
            special_tokens,
        })
    }

    /// Let the template read `now`. Without it `strftime_now` is not defined, and templates that
    /// ask whether it is fall back to a date of their own.
    pub(crate) fn set_now(&mut self, now: OffsetDateTime) {
        self.environment
            .add_function("strftime_now", move |format: String| {
                strftime::format(now, &format)
            });
    }

    /// Convert `conversation` once, for any number of renderings of its beginnings.
    pub(crate) fn prepare(&self, conversation: &Conversation) -> Prepared<'_> {
        let messages: Vec<Value> = conversation.messages.iter().map(message_value).collect();
        let n_messages = messages.len() as u64;
        let mut environment = self.environment.clone();
        let n_bytes = conversation_bytes(conversation);
        environment.set_fuel(Some(BASE_FUEL + FUEL_PER_MESSAGE * n_messages + n_bytes));
        let has_tool_template = environment.get_template(TOOL_USE).is_ok();
        let name = match &conversation.tools {
            Some(_) if has_tool_template => TOOL_USE,
            _ => DEFAULT,
        };
        let tools = conversation.tools.as_ref().map(json_value);
        Prepared {
            environment,
            special_tokens: &self.special_tokens,
            name,
            messages,
            tools,
        }
    }
}

/// A conversation in the template engine's values.
pub(crate) struct Prepared<'a> {
    environment: Environment<'static>,
    special_tokens: &'a BTreeMap<String, String>,
    name: &'static str,
    messages: Vec<Value>,
    tools: Option<Value>,
}

impl Prepared<'_> {
    pub(crate) fn n_messages(&self) -> usize {
        self.messages.len()
    }

    /// Render the first `n_messages` messages.
    ///
    /// # Errors
    /// The template refuses, fails, or runs out of fuel.
    pub(crate) fn render(
        &self,
        n_messages: usize,
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let template = self
            .environment
            .get_template(self.name)
            .map_err(TextError::Template)?;
        let variables = context! {
            messages => Value::from(self.messages[..n_messages].to_vec()),
            // The reference passes None for what is absent, and templates test `is not none`.
            tools => self.tools.clone().unwrap_or_else(|| Value::from(())),
            documents => Value::from(()),
            add_generation_prompt,
            ..Value::from_pairs(self.special_tokens)
        };
        template
            .render(variables)
            .map_err(|error| self.explain(error))
    }

    fn explain(&self, error: Error) -> TextError {
        if error.kind() == ErrorKind::OutOfFuel {
            return TextError::TemplateTooExpensive {
                n_messages: self.messages.len(),
            };
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(current) = cause {
            if let Some(Raised(message)) = current.downcast_ref() {
                return TextError::TemplateRefused(message.clone());
            }
            cause = current.source();
        }
        TextError::Template(error)
    }
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn python_environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("the delimiters are Jinja's own"),
    );
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| match python_literal(value) {
        Some(literal) => minijinja::escape_formatter(out, state, &Value::from(literal)),
        None => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter("tojson", to_json);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.clone())
                .with_source(Raised(message)))
        },
    );
    environment
}

/// Python prints its three literals with a capital.
fn python_literal(value: &Value) -> Option<&'static str> {
    if value.is_none() {
        return Some("None");
    }
    match (value.kind(), value.is_true()) {
        (ValueKind::Bool, true) => Some("True"),
        (ValueKind::Bool, false) => Some("False"),
        _ => None,
    }
}

/// `tojson` as `transformers` defines it: `json.dumps(x, ensure_ascii=False, indent=indent)`,
/// without the HTML escaping of Jinja's own.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a filter takes its arguments by value"
)]
fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if ensure_ascii == Some(true) {
        let problem = "tojson(ensure_ascii=true) is not supported";
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    let json = python_json::to_string(value, indent).map_err(|source| {
        Error::new(ErrorKind::InvalidOperation, "the value is no JSON").with_source(source)
    })?;
    state.consume_fuel(json.len() as u64 / 64)?;
    Ok(json)
}

/// `{% generation %}` marks the assistant's words for a mask that we compute another way; Jinja
/// itself does not know the tag.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let body = &rest[start + 2..];
        let Some(length) = body.find("%}") else { break };
        let tag = &body[..length];
        let replaced = match tag.trim_matches(['-', '+']).trim() {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        out.push_str(&rest[..start]);
        out.extend(["{%", &replaced, "%}"]);
        rest = &body[length + 2..];
    }
    out.push_str(rest);
    out
}

fn message_value(message: &Message) -> Value {
    // OpenAI's newer name for the system's role; templates know only the older one.
    let role = if message.role == "developer" {
        "system"
    } else {
        message.role.as_str()
    };
    let mut fields: Vec<(String, Value)> = vec![
        ("role".to_owned(), Value::from(role)),
        (
            "content".to_owned(),
            message
                .content
                .as_deref()
                .map_or(Value::from(()), Value::from),
        ),
    ];
    let optional = [
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
    ];
    for (key, text) in optional {
        if let Some(text) = text {
            fields.push((key.to_owned(), Value::from(text.as_str())));
        }
    }
    if let Some(calls) = &message.tool_calls {
        fields.push(("tool_calls".to_owned(), tool_call_value(calls)));
    }
    let extra = message
        .extra
        .iter()
        .map(|(key, value)| (key.clone(), json_value(value)));
    Value::from_pairs(fields.into_iter().chain(extra))
}

fn json_value(value: &serde_json::Value) -> Value {
    Value::from(Serde(value))
}

/// On the wire `arguments` is a string of JSON; templates expect the object inside.
fn tool_call_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Array(items) => items.iter().map(tool_call_value).collect(),
        serde_json::Value::Object(fields) => Value::from_pairs(
            fields
                .iter()
                .map(|(key, value)| (key.clone(), tool_field(key, value))),
        ),
        other => json_value(other),
    }
}

fn tool_field(key: &str, value: &serde_json::Value) -> Value {
    match (key, value) {
        ("function", inner) => tool_call_value(inner),
        // Straight into the engine's value, which keeps the order of the keys.
        ("arguments", serde_json::Value::String(json)) => {
            serde_json::from_str(json).unwrap_or_else(|_| Value::from(json.as_str()))
        }
        _ => json_value(value),
    }
}

/// Roughly how much text the conversation brings: what its honest rendering has to copy.
fn conversation_bytes(conversation: &Conversation) -> u64 {
    let value_bytes = |value: &Option<serde_json::Value>| {
        value.as_ref().map_or(0, |value| value.to_string().len())
    };
    let messages = conversation.messages.iter().map(|message| {
        message.content.as_ref().map_or(0, String::len) + value_bytes(&message.tool_calls)
    });
    (messages.sum::<usize>() + value_bytes(&conversation.tools)) as u64
}

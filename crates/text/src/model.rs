//! [`TextModel`]: a tokenizer and a chat template that belong together.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::chat_template::ChatTemplate;
use crate::{Conversation, Example, Shown, TextError, Tokenizer, mask};

/// The textual half of a base model. A clone shares the tokenizer.
#[derive(Clone)]
pub struct TextModel {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    eos_ids: Vec<u32>,
}

impl TextModel {
    /// Put together what a base model's folder holds. `chat_template` is the text of
    /// `chat_template.jinja`, where there is one; else `tokenizer_config.json` carries it.
    ///
    /// # Errors
    /// A document that does not parse, no chat template, an end token that is not in the
    /// vocabulary.
    pub fn from_parts(
        tokenizer_json: &[u8],
        tokenizer_config_json: &[u8],
        chat_template: Option<&str>,
    ) -> Result<Self, TextError> {
        let tokenizer = Tokenizer::from_json(tokenizer_json)?;
        let config: Map<String, Value> =
            serde_json::from_slice(tokenizer_config_json).map_err(TextError::TokenizerConfig)?;
        let templates = match chat_template {
            Some(source) => vec![("default".to_owned(), source.to_owned())],
            None => configured_templates(&config),
        };
        let special_tokens = special_tokens(&config);
        let eos_ids =
            match special_tokens.get("eos_token") {
                Some(token) => vec![tokenizer.token_id(token).ok_or_else(|| {
                    TextError::UnknownSpecialToken {
                        key: "eos_token",
                        token: token.clone(),
                    }
                })?],
                None => Vec::new(),
            };
        Ok(Self {
            tokenizer,
            template: ChatTemplate::new(templates, special_tokens)?,
            eos_ids,
        })
    }

    /// Tell the template the time. Training passes the job's creation, never a clock.
    #[must_use]
    pub fn with_now(mut self, now: OffsetDateTime) -> Self {
        self.template.set_now(now);
        self
    }

    /// Let more tokens end a text: those that `generation_config.json` lists. Where a base model has none, its
    /// `config.json` may say the same. A document that says nothing of them adds none.
    #[must_use]
    pub fn with_generation_config(mut self, generation_config_json: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(generation_config_json).unwrap_or_default();
        let ids = match &document["eos_token_id"] {
            Value::Array(ids) => ids.as_slice(),
            id => std::slice::from_ref(id),
        };
        let ids = ids.iter().filter_map(Value::as_u64);
        self.eos_ids
            .extend(ids.filter_map(|id| u32::try_from(id).ok()));
        self.eos_ids.sort_unstable();
        self.eos_ids.dedup();
        self
    }

    /// The conversation as text; with a generation prompt it ends where the assistant begins.
    ///
    /// # Errors
    /// The template refuses the conversation, fails on it or takes too long.
    pub fn render(
        &self,
        conversation: &Conversation,
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let prepared = self.template.prepare(conversation);
        prepared.render(prepared.n_messages(), add_generation_prompt)
    }

    /// The tokens to prompt the model with, so that it writes the next message.
    ///
    /// # Errors
    /// As [`TextModel::render`] and [`Tokenizer::encode`].
    pub fn prompt_ids(&self, conversation: &Conversation) -> Result<Vec<u32>, TextError> {
        self.tokenizer.encode(&self.render(conversation, true)?)
    }

    /// The tokens to train on, at most `max_seq_len` of them, with the targets marked.
    ///
    /// # Errors
    /// As [`TextModel::render`], and a template that renders the beginning of a conversation
    /// differently once there is more of it.
    pub fn encode_example(
        &self,
        conversation: &Conversation,
        max_seq_len: usize,
    ) -> Result<Example, TextError> {
        let prepared = self.template.prepare(conversation);
        mask::encode_example(&self.tokenizer, &prepared, conversation, max_seq_len)
    }

    /// As [`TextModel::encode_example`], for a person to look at.
    ///
    /// # Errors
    /// As [`TextModel::encode_example`].
    pub fn show_example(
        &self,
        conversation: &Conversation,
        max_seq_len: usize,
    ) -> Result<Shown, TextError> {
        let prepared = self.template.prepare(conversation);
        mask::show_example(&self.tokenizer, &prepared, conversation, max_seq_len)
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Whether a token that ends a text is among the targets of `example`. A model that never learns one may not stop. Of
    /// a base model that names no such token nothing can be said: true.
    pub fn learns_to_end(&self, example: &Example) -> bool {
        let mut targets = example.ids.iter().zip(&example.supervised);
        self.eos_ids.is_empty()
            || targets.any(|(id, supervised)| *supervised && self.eos_ids.contains(id))
    }

    /// The tokens that end a text.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }
}

/// `chat_template` is a string, or a list of `{name, template}`.
fn configured_templates(config: &Map<String, Value>) -> Vec<(String, String)> {
    let named = |entry: &Value| {
        let text = |key| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        Some((text("name")?, text("template")?))
    };
    match config.get("chat_template") {
        Some(Value::String(source)) => vec![("default".to_owned(), source.clone())],
        Some(Value::Array(entries)) => entries.iter().filter_map(named).collect(),
        _ => Vec::new(),
    }
}

/// Every `…_token` of the configuration, each a string or an object with `content`.
fn special_tokens(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let token = |(key, value): (&String, &Value)| {
        let content = value.as_str().or_else(|| value.get("content")?.as_str())?;
        key.ends_with("_token")
            .then(|| (key.clone(), content.to_owned()))
    };
    config.iter().filter_map(token).collect()
}

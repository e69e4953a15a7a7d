//! What can go wrong between a conversation and its tokens.

/// The cause as `tokenizers` reports it.
pub(crate) type TokenizerCause = Box<dyn std::error::Error + Send + Sync>;

/// An error of this crate. Loading errors are about the base model, the others about a conversation.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// `tokenizer.json` is no tokenizer.
    #[error("tokenizer.json could not be read")]
    TokenizerJson(#[source] TokenizerCause),
    /// `tokenizer_config.json` is no JSON object.
    #[error("tokenizer_config.json could not be read")]
    TokenizerConfig(#[source] serde_json::Error),
    /// Neither the configuration nor a file of its own holds a chat template.
    #[error(
        "the base model has no chat template: add `chat_template` to tokenizer_config.json, \
         or use an instruct model"
    )]
    NoChatTemplate,
    /// A named end token is not in the vocabulary.
    #[error("`{key}` in tokenizer_config.json is `{token}`, which the tokenizer does not have")]
    UnknownSpecialToken { key: &'static str, token: String },
    /// The chat template does not parse.
    #[error("the chat template `{name}` does not parse")]
    TemplateSyntax {
        name: String,
        source: minijinja::Error,
    },
    /// The template called `raise_exception`.
    #[error("the chat template refuses this conversation: {0}")]
    TemplateRefused(String),
    /// The template used up its fuel.
    #[error(
        "the chat template ran for too long on a conversation of {n_messages} messages and was \
         stopped"
    )]
    TemplateTooExpensive { n_messages: usize },
    /// The template failed in another way, for instance on a message without content.
    #[error("the chat template failed on this conversation")]
    Template(#[source] minijinja::Error),
    /// A prefix of the conversation does not render to a prefix of the whole.
    #[error(
        "message {message}: the chat template writes the conversation up to this message \
         differently from the same part of the whole conversation, so it cannot be told which \
         tokens are the answer: give this message `weight` 0, or end the row with it"
    )]
    NotIncremental { message: usize },
    /// Text to tokens failed.
    #[error("the text could not be tokenised")]
    Encode(#[source] TokenizerCause),
    /// Tokens to text failed.
    #[error("the tokens could not be turned into text")]
    Decode(#[source] TokenizerCause),
}

//! From a conversation to the tokens a model is trained on or prompted with, and back.
//!
//! [`TextModel`] is the textual half of a base model: its tokenizer and its chat template.
//! Training, serving and the API's previews all use it, so that what a model was trained on and
//! what it is asked later are rendered by the same code.
//!
//! Deliberately absent: tensors, files, clocks. A template that asks for the time is told one
//! ([`TextModel::with_now`]), because a training run must not depend on when it happens.

mod chat_template;
mod error;
mod mask;
mod message;
mod model;
mod shown;
mod tokenizer;

pub use error::TextError;
pub use mask::Example;
pub use message::{ContentError, Conversation, Message, ROLES, content_from_json};
pub use model::TextModel;
pub use shown::{Segment, Shown, ShownToken};
pub use tokenizer::{DecodeStream, Tokenizer};

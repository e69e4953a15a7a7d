//! OpenAI's answers: `chat.completion` and `chat.completion.chunk`, key for key.
//!
//! Strict clients fail on a missing key, so `logprobs`, `refusal` and `finish_reason` are always there, if only as null.

use serde::Serialize;

/// What all objects of one answer say.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// `chatcmpl-…`, the same on every chunk.
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: i64,
    /// The model as the client named it.
    pub(crate) model: String,
    /// Changes when the weights or the code that runs them do.
    pub(crate) system_fingerprint: String,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinishReason {
    /// The model was done, or a stop sequence came.
    Stop,
    /// As many tokens as asked for, or as fit.
    Length,
}

/// A token and how likely it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
pub(crate) struct Logprob {
    /// Its text; `U+FFFD` stands for a part of a character.
    pub(crate) token: String,
    /// The natural logarithm of its probability, before temperature and `top_p`.
    pub(crate) logprob: f64,
    /// The bytes of `token`, null where the token is only a part of a character.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// A token, how likely it was and what would have been likelier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TokenLogprob {
    /// The token that was chosen.
    #[serde(flatten)]
    pub(crate) chosen: Logprob,
    /// The likeliest tokens at this place.
    pub(crate) top_logprobs: Vec<Logprob>,
}

/// The log probabilities of one answer or one chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Logprobs {
    /// One per token.
    pub(crate) content: Vec<TokenLogprob>,
    /// Nothing here refuses apart from the content.
    pub(crate) refusal: Option<Vec<TokenLogprob>>,
}

impl Logprobs {
    /// Wraps the tokens if the client asked for them.
    pub(crate) fn of(wanted: bool, content: Vec<TokenLogprob>) -> Option<Self> {
        wanted.then_some(Self {
            content,
            refusal: None,
        })
    }
}

/// What a request cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
pub(crate) struct Usage {
    /// Tokens of the rendered messages.
    pub(crate) prompt_tokens: usize,
    /// Tokens generated over all choices, the one that ended each included.
    pub(crate) completion_tokens: usize,
    /// Both.
    pub(crate) total_tokens: usize,
}

impl Usage {
    /// Adds up.
    pub(crate) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
        }
    }
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct ChatCompletion {
    id: String,
    object: &'static str,
    created: i64,
    model: String,
    choices: Vec<Choice>,
    usage: Usage,
    system_fingerprint: String,
}

/// One of the answers.
#[derive(Debug, Serialize)]
pub(crate) struct Choice {
    /// Counts from 0.
    pub(crate) index: usize,
    /// What the model says.
    pub(crate) message: AssistantMessage,
    /// Null unless asked for.
    pub(crate) logprobs: Option<Logprobs>,
    /// Why it ended.
    pub(crate) finish_reason: FinishReason,
}

/// What the model says.
#[derive(Debug, Serialize)]
pub(crate) struct AssistantMessage {
    role: &'static str,
    content: String,
    refusal: Option<String>,
}

impl AssistantMessage {
    /// A message of this text.
    pub(crate) fn new(content: String) -> Self {
        Self {
            role: "assistant",
            content,
            refusal: None,
        }
    }
}

impl ChatCompletion {
    /// An answer with these choices.
    pub(crate) fn new(envelope: Envelope, choices: Vec<Choice>, usage: Usage) -> Self {
        let Envelope {
            id,
            created,
            model,
            system_fingerprint,
        } = envelope;
        Self {
            id,
            object: "chat.completion",
            created,
            model,
            choices,
            usage,
            system_fingerprint,
        }
    }
}

/// A piece of a streamed answer.
#[derive(Debug, Serialize)]
pub(crate) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<ChunkChoice>,
    /// Absent unless asked for; then null on all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(
        clippy::option_option,
        reason = "absent and null are two things on the wire"
    )]
    usage: Option<Option<Usage>>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<Logprobs>,
    finish_reason: Option<FinishReason>,
}

/// What a chunk adds to a choice.
#[derive(Debug, Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Present, as null, where the role is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(
        clippy::option_option,
        reason = "absent and null are two things on the wire"
    )]
    refusal: Option<Option<String>>,
}

/// Makes the chunks of one answer.
#[derive(Debug)]
pub(crate) struct Chunks {
    envelope: Envelope,
    include_usage: bool,
}

impl Chunks {
    /// The chunks of an answer; with `include_usage` each has the key.
    pub(crate) fn new(envelope: Envelope, include_usage: bool) -> Self {
        Self {
            envelope,
            include_usage,
        }
    }

    /// The first chunk of a choice: who speaks.
    pub(crate) fn role(&self, index: usize) -> Chunk<'_> {
        let delta = Delta {
            role: Some("assistant"),
            content: Some(String::new()),
            refusal: Some(None),
        };
        self.chunk(index, delta, None, None)
    }

    /// More text of a choice.
    pub(crate) fn text(&self, index: usize, text: String, logprobs: Option<Logprobs>) -> Chunk<'_> {
        let delta = Delta {
            content: Some(text),
            ..Delta::default()
        };
        self.chunk(index, delta, logprobs, None)
    }

    /// The last chunk of a choice: why it ended.
    pub(crate) fn finish(&self, index: usize, reason: FinishReason) -> Chunk<'_> {
        self.chunk(index, Delta::default(), None, Some(reason))
    }

    /// The last chunk of all, without choices, if the client asked for it.
    pub(crate) fn usage(&self, usage: Usage) -> Option<Chunk<'_>> {
        self.include_usage
            .then(|| self.with(Vec::new(), Some(usage)))
    }

    fn chunk(
        &self,
        index: usize,
        delta: Delta,
        logprobs: Option<Logprobs>,
        finish_reason: Option<FinishReason>,
    ) -> Chunk<'_> {
        self.with(
            vec![ChunkChoice {
                index,
                delta,
                logprobs,
                finish_reason,
            }],
            None,
        )
    }

    fn with(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Chunk<'_> {
        Chunk {
            id: &self.envelope.id,
            object: "chat.completion.chunk",
            created: self.envelope.created,
            model: &self.envelope.model,
            system_fingerprint: &self.envelope.system_fingerprint,
            choices,
            usage: self.include_usage.then_some(usage),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            id: "chatcmpl-1".to_owned(),
            created: 1_700_000_000,
            model: "ft:m".to_owned(),
            system_fingerprint: "fp_1".to_owned(),
        }
    }

    fn value(object: impl Serialize) -> Value {
        serde_json::to_value(object).unwrap()
    }

    #[test]
    fn an_answer_has_every_key() {
        let choice = Choice {
            index: 0,
            message: AssistantMessage::new("Hi".to_owned()),
            logprobs: None,
            finish_reason: FinishReason::Stop,
        };
        assert_eq!(
            value(ChatCompletion::new(
                envelope(),
                vec![choice],
                Usage::new(3, 2)
            )),
            json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "ft:m",
                "choices": [{
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi", "refusal": null},
                    "logprobs": null, "finish_reason": "stop",
                }],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
                "system_fingerprint": "fp_1",
            })
        );
    }

    fn only_choice(chunk: &Chunk<'_>) -> Value {
        value(chunk)["choices"][0].clone()
    }

    #[test]
    fn chunks_say_who_then_what_then_why() {
        let chunks = Chunks::new(envelope(), false);
        assert_eq!(
            value(chunks.role(1)),
            json!({
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000,
                "model": "ft:m", "system_fingerprint": "fp_1",
                "choices": [{
                    "index": 1, "delta": {"role": "assistant", "content": "", "refusal": null},
                    "logprobs": null, "finish_reason": null,
                }],
            })
        );
        assert_eq!(
            only_choice(&chunks.text(0, "Hi".to_owned(), None)),
            json!({"index": 0, "delta": {"content": "Hi"}, "logprobs": null, "finish_reason": null})
        );
        assert_eq!(
            only_choice(&chunks.finish(0, FinishReason::Length)),
            json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length"})
        );
    }

    #[test]
    fn usage_is_null_until_the_last_chunk_and_absent_unless_asked_for() {
        let asked = Chunks::new(envelope(), true);
        assert_eq!(value(asked.role(0)).get("usage"), Some(&Value::Null));
        let last = value(asked.usage(Usage::new(1, 2)).unwrap());
        assert_eq!(
            (&last["choices"], &last["usage"]["total_tokens"]),
            (&json!([]), &json!(3))
        );
        assert!(
            Chunks::new(envelope(), false)
                .usage(Usage::new(1, 2))
                .is_none()
        );
    }

    #[test]
    fn a_token_carries_its_alternatives() {
        let alternative = Logprob {
            token: "a".to_owned(),
            logprob: -0.5,
            bytes: Some(vec![97]),
        };
        let token = TokenLogprob {
            chosen: alternative.clone(),
            top_logprobs: vec![alternative],
        };
        assert_eq!(
            value(Logprobs::of(true, vec![token])),
            json!({"content": [{
                "token": "a", "logprob": -0.5, "bytes": [97],
                "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
            }], "refusal": null})
        );
        assert_eq!(Logprobs::of(false, Vec::new()), None);
    }
}

//! The loss mask: which tokens of a conversation a model is trained to write.
//!
//! For every assistant message whose weight is not 0, supervised is what the chat template emits
//! between "rendered up to here with a generation prompt" and "rendered through this message", so
//! the end of the turn is inside. The whole conversation is tokenised once and the two boundaries
//! are found in the text; a token counts when it lies between them. That is the same as comparing
//! tokens of prefixes where those agree, and still well defined where a token straddles a
//! boundary: such a token holds some of the prompt, which the model is not asked to write.

use crate::chat_template::Prepared;
use crate::shown::Shown;
use crate::tokenizer::{Encoded, Tokenizer};
use crate::{Conversation, TextError};

/// A conversation as tokens, with its targets marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<u32>,
    /// `supervised[i]`: `ids[i]` is a target, predicted from `ids[..i]`. Never true at 0.
    pub supervised: Vec<bool>,
    /// Whether tokens past the longest allowed sequence were cut off.
    pub truncated: bool,
}

impl Example {
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// How many tokens are targets. Zero is possible when the end was cut off.
    pub fn n_supervised(&self) -> usize {
        self.supervised
            .iter()
            .filter(|supervised| **supervised)
            .count()
    }
}

/// Tokenise and mask `conversation`, keeping at most `max_seq_len` tokens.
///
/// Beside one rendering and tokenisation of the whole, the work is two renderings for every
/// supervised message that begins within the kept tokens, each no longer than those.
pub(crate) fn encode_example(
    tokenizer: &Tokenizer,
    prepared: &Prepared<'_>,
    conversation: &Conversation,
    max_seq_len: usize,
) -> Result<Example, TextError> {
    show_example(tokenizer, prepared, conversation, max_seq_len).map(|shown| shown.example)
}

/// As [`encode_example`], with the text and where each token stands in it.
pub(crate) fn show_example(
    tokenizer: &Tokenizer,
    prepared: &Prepared<'_>,
    conversation: &Conversation,
    max_seq_len: usize,
) -> Result<Shown, TextError> {
    let whole = prepared.render(prepared.n_messages(), false)?;
    let Encoded {
        mut ids,
        mut offsets,
    } = tokenizer.encode_with_offsets(&whole)?;
    let n_uncut_tokens = ids.len();
    let truncated = n_uncut_tokens > max_seq_len;
    ids.truncate(max_seq_len);
    offsets.truncate(max_seq_len);
    let n_kept_bytes = offsets.last().map_or(0, |(_, end)| *end);
    let spans = supervised_spans(prepared, conversation, &whole, n_kept_bytes)?;
    let mut supervised = tokens_within(&offsets, &spans);
    if let Some(first) = supervised.first_mut() {
        // Nothing comes before it, so nothing predicts it.
        *first = false;
    }
    Ok(Shown {
        text: whole,
        offsets,
        n_uncut_tokens,
        example: Example {
            ids,
            supervised,
            truncated,
        },
    })
}

/// Byte ranges of `whole` that the model is to write, in order, up to `n_kept_bytes`.
fn supervised_spans(
    prepared: &Prepared<'_>,
    conversation: &Conversation,
    whole: &str,
    n_kept_bytes: usize,
) -> Result<Vec<(usize, usize)>, TextError> {
    let mut spans = Vec::new();
    for (index, message) in conversation.messages.iter().enumerate() {
        if !message.is_supervised() {
            continue;
        }
        let start = prefix_len(prepared, whole, index, index, true)?;
        if start >= n_kept_bytes {
            break;
        }
        let is_last = index + 1 == conversation.messages.len();
        let end = if is_last {
            whole.len()
        } else {
            prefix_len(prepared, whole, index, index + 1, false)?
        };
        if start > end {
            return Err(TextError::NotIncremental { message: index });
        }
        spans.push((start, end));
    }
    Ok(spans)
}

/// The length of the rendering of the first `n_messages`, which has to begin the whole one.
fn prefix_len(
    prepared: &Prepared<'_>,
    whole: &str,
    message: usize,
    n_messages: usize,
    add_generation_prompt: bool,
) -> Result<usize, TextError> {
    let prefix = prepared.render(n_messages, add_generation_prompt)?;
    if whole.starts_with(&prefix) {
        Ok(prefix.len())
    } else {
        Err(TextError::NotIncremental { message })
    }
}

fn tokens_within(offsets: &[(usize, usize)], spans: &[(usize, usize)]) -> Vec<bool> {
    let mut spans = spans.iter().copied().peekable();
    let is_within = |&(start, end): &(usize, usize)| {
        while spans.next_if(|(_, span_end)| *span_end <= start).is_some() {}
        spans.peek().is_some_and(|(span_start, span_end)| {
            *span_start <= start && start < end && end <= *span_end
        })
    };
    offsets.iter().map(is_within).collect()
}

#[cfg(test)]
mod tests {
    use super::tokens_within;

    #[test]
    fn only_tokens_wholly_inside_a_span_count() {
        let offsets = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)];
        assert_eq!(
            tokens_within(&offsets, &[(2, 4), (8, 10)]),
            [false, true, false, false, true]
        );
        // The second token straddles the start, the fourth the end.
        assert_eq!(
            tokens_within(&offsets, &[(3, 7)]),
            [false, false, true, false, false]
        );
        assert_eq!(tokens_within(&offsets, &[]), [false; 5]);
    }
}

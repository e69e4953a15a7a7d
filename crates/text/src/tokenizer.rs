//! The tokenizer of a base model, over the `tokenizers` crate.
//!
//! Nothing is ever added to the text: the chat template writes the special tokens, and they are
//! recognised where it wrote them. `tokenizer.json` may ask for truncation, padding and a
//! post-processor; all three are for other uses and are switched off.

use std::sync::Arc;

use tokenizers::PostProcessorWrapper;

use crate::TextError;

/// What a decoder puts where the bytes so far are no character.
const REPLACEMENT: char = '\u{FFFD}';

/// A tokenizer. Cloning shares it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
}

/// Tokens and where each came from.
pub(crate) struct Encoded {
    pub(crate) ids: Vec<u32>,
    /// Byte ranges in the text, one per token.
    pub(crate) offsets: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// Read a `tokenizer.json`.
    ///
    /// # Errors
    /// The bytes are no tokenizer that the `tokenizers` crate knows.
    pub fn from_json(json: &[u8]) -> Result<Self, TextError> {
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(TextError::TokenizerJson)?;
        inner
            .with_truncation(None)
            .map_err(TextError::TokenizerJson)?;
        inner.with_padding(None);
        // Without special tokens to add, all that a post-processor does is to trim spaces off the
        // offsets, which the loss mask needs whole.
        inner.with_post_processor(None::<PostProcessorWrapper>);
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The tokens of `text`, special tokens in it parsed as such, none added.
    ///
    /// # Errors
    /// A text the tokenizer cannot spell (no byte-level tokenizer has one).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(TextError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(crate) fn encode_with_offsets(&self, text: &str) -> Result<Encoded, TextError> {
        let encoding = self.inner.encode(text, false).map_err(TextError::Encode)?;
        let ids = encoding.get_ids().to_vec();
        Ok(Encoded {
            ids,
            offsets: encoding.get_offsets().to_vec(),
        })
    }

    /// The text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// The decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, true).map_err(TextError::Decode)
    }

    /// The text of `ids`, special tokens included.
    ///
    /// # Errors
    /// The decoder fails.
    pub fn decode_with_special_tokens(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, false).map_err(TextError::Decode)
    }

    /// Decode tokens one at a time, as they are generated.
    pub fn decode_stream(&self) -> DecodeStream {
        DecodeStream {
            tokenizer: self.clone(),
            ids: Vec::new(),
            n_emitted: 0,
        }
    }

    /// The id of a whole token, special or not.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

/// Text from tokens, piece by piece. The pieces joined are the text of all tokens at once.
pub struct DecodeStream {
    tokenizer: Tokenizer,
    /// The tokens of the last piece, which some decoders need as context, and those held back.
    ids: Vec<u32>,
    /// How many of `ids` have been emitted.
    n_emitted: usize,
}

impl DecodeStream {
    /// A character has at most four bytes, so more tokens than this that still do not end in one
    /// are bytes that never will.
    const MAX_HELD: usize = 8;

    /// The text that `id` completes; `None` while it ends inside a character, or has no text.
    ///
    /// # Errors
    /// The decoder fails.
    pub fn step(&mut self, id: u32) -> Result<Option<String>, TextError> {
        self.ids.push(id);
        let text = self.pending_text()?;
        let n_held = self.ids.len() - self.n_emitted;
        if text.ends_with(REPLACEMENT) && n_held <= Self::MAX_HELD {
            return Ok(None);
        }
        if text.is_empty() {
            self.n_emitted = self.ids.len();
            return Ok(None);
        }
        self.ids.drain(..self.n_emitted);
        self.n_emitted = self.ids.len();
        Ok(Some(text))
    }

    /// What was still held back when generation ended.
    ///
    /// # Errors
    /// The decoder fails.
    pub fn finish(mut self) -> Result<Option<String>, TextError> {
        let text = self.pending_text()?;
        self.ids.clear();
        Ok((!text.is_empty()).then_some(text))
    }

    fn pending_text(&self) -> Result<String, TextError> {
        let emitted = self.tokenizer.decode(&self.ids[..self.n_emitted])?;
        let mut text = self.tokenizer.decode(&self.ids)?;
        // A decoder that rewrites what it said before has nothing new to say yet.
        Ok(if text.starts_with(&emitted) {
            text.split_off(emitted.len())
        } else {
            String::new()
        })
    }
}

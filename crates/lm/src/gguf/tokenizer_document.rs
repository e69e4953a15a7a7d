//! `tokenizer.json` from the vocabulary that a GGUF file carries.
//!
//! GGUF names the splitting of text into words (`tokenizer.ggml.pre`) and leaves its rules to the
//! reader, so each name needs its own pipeline here. A name without one is refused: a tokenizer
//! that is almost right trains a model on tokens it has never seen.

use serde_json::{Map, Value, json};

/// An ordinary entry of the vocabulary.
pub(crate) const TOKEN_TYPE_NORMAL: i64 = 1;
/// A token that text never produces by itself, such as the end of a turn.
pub(crate) const TOKEN_TYPE_CONTROL: i64 = 3;
/// A token added to the vocabulary by hand: matched in text before it is split.
pub(crate) const TOKEN_TYPE_USER_DEFINED: i64 = 4;

/// How the Qwen models split text into words.
const QWEN2_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// How Llama 3 splits text into words: as Qwen does, but with up to three digits together.
const LLAMA3_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The vocabulary of a byte-level BPE tokenizer, as GGUF metadata has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vocabulary {
    /// Token texts in the byte-level alphabet; the index is the id.
    pub(crate) tokens: Vec<String>,
    /// One of the `TOKEN_TYPE_` codes per token, or empty: all normal.
    pub(crate) token_types: Vec<i64>,
    /// Pairs separated by one space, most important first.
    pub(crate) merges: Vec<String>,
}

/// A splitting rule that we know how to write down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreTokenizer {
    Gpt2,
    SmolLm,
    Qwen2,
    Llama3,
}

impl PreTokenizer {
    /// The rule that `tokenizer.ggml.pre` names; `None` for one that we do not know.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "gpt-2" | "gpt2" | "default" => Some(Self::Gpt2),
            "smollm" => Some(Self::SmolLm),
            "qwen2" | "deepseek-r1-qwen" => Some(Self::Qwen2),
            "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe" => Some(Self::Llama3),
            _ => None,
        }
    }

    /// The name by which `tokenizer.ggml.pre` is to say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::SmolLm => "smollm",
            Self::Qwen2 => "qwen2",
            Self::Llama3 => "llama-bpe",
        }
    }

    pub(super) fn normalizer(self) -> Value {
        match self {
            Self::Qwen2 => json!({"type": "NFC"}),
            Self::Gpt2 | Self::SmolLm | Self::Llama3 => Value::Null,
        }
    }

    pub(super) fn pre_tokenizer(self) -> Value {
        match self {
            Self::Gpt2 => byte_level(true),
            Self::SmolLm => sequence(&json!({"type": "Digits", "individual_digits": true}), true),
            Self::Qwen2 => sequence(&split(QWEN2_WORDS), false),
            Self::Llama3 => sequence(&split(LLAMA3_WORDS), false),
        }
    }

    /// Whether a word that is itself a token is that token, whatever the merges say.
    pub(super) fn ignores_merges(self) -> bool {
        self == Self::Llama3
    }
}

fn sequence(first: &Value, byte_level_splits: bool) -> Value {
    json!({"type": "Sequence", "pretokenizers": [first, byte_level(byte_level_splits)]})
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": use_regex})
}

/// Builds the document.
///
/// # Errors
/// In words, when the vocabulary contradicts itself.
pub(crate) fn build(vocabulary: &Vocabulary, pre: PreTokenizer) -> Result<Value, String> {
    let Vocabulary {
        tokens,
        token_types,
        ..
    } = vocabulary;
    if !token_types.is_empty() && token_types.len() != tokens.len() {
        return Err(format!(
            "{} tokens, but {} token types",
            tokens.len(),
            token_types.len()
        ));
    }
    let mut vocab = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if vocab.insert(token.clone(), Value::from(id)).is_some() {
            return Err(format!("token {token:?} occurs twice"));
        }
    }
    let merges: Vec<Value> = merges(vocabulary)?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(vocabulary),
        "normalizer": pre.normalizer(),
        "pre_tokenizer": pre.pre_tokenizer(),
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.ignores_merges(),
            "vocab": vocab,
            "merges": merges,
        },
    }))
}

/// The tokens that are found in the text as they stand, before any splitting.
fn added_tokens(vocabulary: &Vocabulary) -> Vec<Value> {
    let typed = vocabulary
        .tokens
        .iter()
        .zip(&vocabulary.token_types)
        .enumerate();
    typed
        .filter(|(_, (_, kind))| matches!(**kind, TOKEN_TYPE_CONTROL | TOKEN_TYPE_USER_DEFINED))
        .map(|(id, (token, kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": *kind == TOKEN_TYPE_CONTROL})
        })
        .collect()
}

/// Merges as pairs. Every side and every result must be a token, or the library refuses the whole
/// document without saying which.
fn merges(vocabulary: &Vocabulary) -> Result<Vec<Value>, String> {
    let tokens: std::collections::HashSet<&str> =
        vocabulary.tokens.iter().map(String::as_str).collect();
    let pair = |merge: &String| {
        let (left, right) = merge
            .split_once(' ')
            .filter(|(_, right)| !right.contains(' '))
            .ok_or_else(|| format!("merge {merge:?} is not a pair"))?;
        for part in [left, right, &format!("{left}{right}")] {
            if !tokens.contains(part) {
                return Err(format!(
                    "merge {merge:?} needs the token {part:?}, which is missing"
                ));
            }
        }
        Ok(json!([left, right]))
    };
    vocabulary.merges.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(tokens: &[&str], merges: &[&str]) -> Vocabulary {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Vocabulary {
            tokens: owned(tokens),
            token_types: Vec::new(),
            merges: owned(merges),
        }
    }

    #[test]
    fn control_and_user_defined_tokens_are_added_tokens_under_their_own_ids() {
        let mut vocabulary = vocabulary(&["a", "<end>", "<tool>"], &[]);
        vocabulary.token_types = vec![1, 3, 4];
        let document = build(&vocabulary, PreTokenizer::SmolLm).unwrap();
        let added = document["added_tokens"].as_array().unwrap();
        assert_eq!(added.len(), 2);
        assert_eq!(
            (&added[0]["id"], &added[0]["special"]),
            (&json!(1), &json!(true))
        );
        assert_eq!(
            (&added[1]["id"], &added[1]["special"]),
            (&json!(2), &json!(false))
        );
        assert_eq!(document["model"]["vocab"]["<end>"], 1);
    }

    #[test]
    fn merges_become_pairs() {
        let document = build(&vocabulary(&["a", "b", "ab"], &["a b"]), PreTokenizer::Gpt2).unwrap();
        assert_eq!(document["model"]["merges"], json!([["a", "b"]]));
    }

    #[test]
    fn contradictions_are_named() {
        let twice = build(&vocabulary(&["a", "a"], &[]), PreTokenizer::Gpt2).unwrap_err();
        assert_eq!(twice, "token \"a\" occurs twice");
        let missing = build(&vocabulary(&["a", "b"], &["a b"]), PreTokenizer::Gpt2).unwrap_err();
        assert_eq!(
            missing,
            "merge \"a b\" needs the token \"ab\", which is missing"
        );
        let odd = build(&vocabulary(&["a"], &["a"]), PreTokenizer::Gpt2).unwrap_err();
        assert_eq!(odd, "merge \"a\" is not a pair");
        let mut short = vocabulary(&["a", "b"], &[]);
        short.token_types = vec![1];
        assert_eq!(
            build(&short, PreTokenizer::Gpt2).unwrap_err(),
            "2 tokens, but 1 token types"
        );
    }

    #[test]
    fn unknown_splitting_rules_have_no_pre_tokenizer() {
        assert_eq!(
            PreTokenizer::from_name("smollm"),
            Some(PreTokenizer::SmolLm)
        );
        assert_eq!(PreTokenizer::from_name("tekken"), None);
    }
}

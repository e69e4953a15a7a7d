//! GGUF metadata of a tokenizer from its documents: what `tokenizer_metadata` reads, written.
//!
//! GGUF has room for the vocabulary and the name of a splitting rule. A tokenizer that does anything
//! else is refused: readers would split text into other tokens than the model was trained on.

use serde_json::Value;

use super::tokenizer_document::{
    PreTokenizer, TOKEN_TYPE_CONTROL, TOKEN_TYPE_NORMAL, TOKEN_TYPE_USER_DEFINED,
};
use super::write::{MetadataList, MetadataValue};
use crate::error::LoadError;

/// An entry that stands for no text: the embedding has more rows than the tokenizer has tokens.
const TOKEN_TYPE_UNUSED: i64 = 5;

/// The documents that say what the tokenizer is.
pub(crate) struct TokenizerDocuments<'a> {
    pub(crate) tokenizer: &'a Value,
    pub(crate) tokenizer_config: &'a Value,
    /// The text of a template file; it wins over the one in `tokenizer_config`.
    pub(crate) chat_template: Option<&'a str>,
    /// Ids that end generation.
    pub(crate) eos_token_ids: &'a [u32],
    /// Rows of the embedding.
    pub(crate) vocab_size: usize,
}

/// The metadata.
///
/// # Errors
/// [`LoadError::NotGguf`] with what the format has no way to say.
pub(crate) fn keys(documents: &TokenizerDocuments<'_>) -> Result<MetadataList, LoadError> {
    let pre = pre_tokenizer(documents.tokenizer).map_err(LoadError::NotGguf)?;
    let (tokens, types) = tokens(documents).map_err(LoadError::NotGguf)?;
    let merges = merges(documents.tokenizer).map_err(LoadError::NotGguf)?;
    let special = special_ids(documents, &tokens);
    let mut list = vec![
        ("model", MetadataValue::string("gpt2")),
        ("pre", MetadataValue::string(pre.name())),
        ("tokens", MetadataValue::Strings(tokens)),
        ("token_type", MetadataValue::I32s(types)),
        ("merges", MetadataValue::Strings(merges)),
        ("add_bos_token", MetadataValue::Bool(adds_bos(documents))),
        ("add_eos_token", MetadataValue::Bool(false)),
    ];
    list.extend(special.map(|(key, id)| (key, MetadataValue::U32(id))));
    let mut list: MetadataList = list
        .into_iter()
        .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
        .collect();
    if let Some(template) = chat_template(documents) {
        let value = MetadataValue::string(template);
        list.push(("tokenizer.chat_template".to_owned(), value));
    }
    Ok(list)
}

/// The rule of that name whose document is this one.
fn pre_tokenizer(tokenizer: &Value) -> Result<PreTokenizer, String> {
    let model = &tokenizer["model"];
    let kind = model["type"].as_str().unwrap_or("of no type");
    if kind != "BPE" || model["byte_fallback"] == true {
        return Err(format!("its tokenizer is {kind}, not byte-level BPE"));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[key].as_str().is_some_and(|mark| !mark.is_empty()) {
            return Err(format!("its tokenizer has a `{key}`"));
        }
    }
    let found = [
        PreTokenizer::Gpt2,
        PreTokenizer::SmolLm,
        PreTokenizer::Qwen2,
        PreTokenizer::Llama3,
    ]
    .into_iter()
    .find(|pre| steps(&pre.pre_tokenizer()) == steps(&tokenizer["pre_tokenizer"]))
    .ok_or("its tokenizer splits text by a rule that has no name there")?;
    if tokenizer["normalizer"] != found.normalizer() {
        return Err("its tokenizer changes text before splitting it".to_owned());
    }
    if (model["ignore_merges"] == true) != found.ignores_merges() {
        return Err("its tokenizer treats whole words as no rule with a name does".to_owned());
    }
    Ok(found)
}

/// The steps of a pre-tokenizer, without what says nothing about where text is split.
fn steps(pre_tokenizer: &Value) -> Vec<Value> {
    if let Value::Array(steps) = &pre_tokenizer["pretokenizers"] {
        return steps.iter().flat_map(self::steps).collect();
    }
    let mut step = pre_tokenizer.clone();
    if let Value::Object(fields) = &mut step {
        fields.remove("trim_offsets");
        if fields.get("type").is_some_and(|kind| kind == "ByteLevel") {
            fields.entry("use_regex").or_insert(true.into());
        }
    }
    vec![step]
}

/// All tokens in the order of their ids, with their types.
fn tokens(documents: &TokenizerDocuments<'_>) -> Result<(Vec<String>, Vec<i32>), String> {
    let tokenizer = documents.tokenizer;
    let vocabulary = tokenizer["model"]["vocab"].as_object();
    let vocabulary = vocabulary.ok_or("its tokenizer has no vocabulary")?;
    let mut tokens = vec![None; documents.vocab_size];
    let normal = vocabulary.iter();
    let normal = normal.map(|(text, id)| (text.as_str(), id, TOKEN_TYPE_NORMAL));
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let added = added.map(|token| {
        let special = token["special"] == true;
        let kind = if special {
            TOKEN_TYPE_CONTROL
        } else {
            TOKEN_TYPE_USER_DEFINED
        };
        (
            token["content"].as_str().unwrap_or_default(),
            &token["id"],
            kind,
        )
    });
    for (text, id, kind) in normal.chain(added) {
        let slot = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let slot = slot.and_then(|id| tokens.get_mut(id));
        *slot.ok_or_else(|| {
            format!(
                "its token {text:?} is {id}, beyond the {} of its embedding",
                documents.vocab_size
            )
        })? = Some((text.to_owned(), kind));
    }
    let filled = tokens.into_iter().enumerate().map(|(id, token)| {
        let (text, kind) = token.unwrap_or_else(|| (format!("[PAD{id}]"), TOKEN_TYPE_UNUSED));
        (text, i32::try_from(kind).expect("one of six"))
    });
    Ok(filled.unzip())
}

/// Each pair with a space between, whichever of the two forms the document has.
fn merges(tokenizer: &Value) -> Result<Vec<String>, String> {
    let merges = tokenizer["model"]["merges"].as_array();
    let merges = merges.ok_or("its tokenizer has no merges")?;
    let one = |merge: &Value| match merge {
        Value::String(pair) => Some(pair.clone()),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(left), Value::String(right)] => Some(format!("{left} {right}")),
            _ => None,
        },
        _ => None,
    };
    let pairs = merges.iter().map(|merge| {
        let pair = one(merge).filter(|pair| pair.matches(' ').count() == 1);
        pair.ok_or_else(|| format!("its tokenizer merges {merge}, which is no pair"))
    });
    pairs.collect()
}

/// Ids by key, those that there are. Of several ids that end generation the format has room for the
/// end of a text and the end of a turn; readers find others by their names.
fn special_ids<'a>(
    documents: &TokenizerDocuments<'_>,
    tokens: &[String],
) -> impl Iterator<Item = (&'a str, u32)> + use<'a> {
    let named = |key: &str| {
        let token = &documents.tokenizer_config[key];
        let text = token.as_str().or_else(|| token["content"].as_str())?;
        let id = tokens.iter().position(|token| token == text)?;
        u32::try_from(id).ok()
    };
    let ends = documents.eos_token_ids;
    let eos = named("eos_token").or_else(|| ends.first().copied());
    let eot = ends.iter().copied().find(|id| Some(*id) != eos);
    let ids = [
        ("bos_token_id", named("bos_token")),
        ("eos_token_id", eos),
        ("eot_token_id", eot),
        ("padding_token_id", named("pad_token")),
        ("unknown_token_id", named("unk_token")),
    ];
    ids.into_iter().filter_map(|(key, id)| Some((key, id?)))
}

/// Whether text begins with the bos token without a template saying so.
fn adds_bos(documents: &TokenizerDocuments<'_>) -> bool {
    if let Value::Bool(flag) = documents.tokenizer_config["add_bos_token"] {
        return flag;
    }
    let processor = &documents.tokenizer["post_processor"];
    let steps = processor["processors"].as_array();
    let mut steps = steps
        .map_or(std::slice::from_ref(processor), Vec::as_slice)
        .iter();
    steps.any(|step| !step["single"][0]["SpecialToken"].is_null())
}

fn chat_template<'a>(documents: &TokenizerDocuments<'a>) -> Option<&'a str> {
    if let Some(template) = documents.chat_template {
        return Some(template);
    }
    match &documents.tokenizer_config["chat_template"] {
        Value::String(template) => Some(template),
        // Older documents list several by name.
        Value::Array(templates) => {
            let default = templates.iter().find(|entry| entry["name"] == "default");
            default?["template"].as_str()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gguf::tokenizer_document::{Vocabulary, build};

    fn tokenizer(pre: PreTokenizer) -> Value {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let vocabulary = Vocabulary {
            tokens: owned(&["<|end|>", "a", "b", "ab", "<tool>"]),
            token_types: vec![3, 1, 1, 1, 4],
            merges: owned(&["a b"]),
        };
        build(&vocabulary, pre).unwrap()
    }

    fn written(tokenizer: &Value, config: &Value) -> Result<MetadataList, LoadError> {
        keys(&TokenizerDocuments {
            tokenizer,
            tokenizer_config: config,
            chat_template: None,
            eos_token_ids: &[0, 4],
            vocab_size: 6,
        })
    }

    fn value<'a>(list: &'a MetadataList, key: &str) -> Option<&'a MetadataValue> {
        let mut found = list.iter().filter(|(found, _)| found == key);
        Some(&found.next()?.1)
    }

    #[test]
    fn every_rule_is_written_under_its_name() {
        for (pre, name) in [
            (PreTokenizer::Gpt2, "gpt-2"),
            (PreTokenizer::SmolLm, "smollm"),
            (PreTokenizer::Qwen2, "qwen2"),
            (PreTokenizer::Llama3, "llama-bpe"),
        ] {
            let list = written(&tokenizer(pre), &json!({})).unwrap();
            let found = value(&list, "tokenizer.ggml.pre");
            assert_eq!(found, Some(&MetadataValue::string(name)));
            assert_eq!(PreTokenizer::from_name(name), Some(pre));
        }
    }

    #[test]
    fn tokens_types_and_merges_are_those_of_the_document() {
        let mut document = tokenizer(PreTokenizer::Gpt2);
        document["model"]["merges"] = json!(["a b"]);
        let list = written(&document, &json!({"eos_token": {"content": "<|end|>"}})).unwrap();
        let strings =
            |list: &[&str]| MetadataValue::Strings(list.iter().map(ToString::to_string).collect());
        let tokens = strings(&["<|end|>", "a", "b", "ab", "<tool>", "[PAD5]"]);
        assert_eq!(value(&list, "tokenizer.ggml.tokens"), Some(&tokens));
        let types = MetadataValue::I32s(vec![3, 1, 1, 1, 4, 5]);
        assert_eq!(value(&list, "tokenizer.ggml.token_type"), Some(&types));
        assert_eq!(
            value(&list, "tokenizer.ggml.merges"),
            Some(&strings(&["a b"]))
        );
        let id = |key: &str| value(&list, &format!("tokenizer.ggml.{key}_token_id"));
        assert_eq!(id("eos"), Some(&MetadataValue::U32(0)));
        assert_eq!(id("eot"), Some(&MetadataValue::U32(4)));
        assert_eq!(id("bos"), None);
    }

    #[test]
    fn a_template_that_begins_with_bos_is_noticed() {
        let mut document = tokenizer(PreTokenizer::Llama3);
        let adds = |document: &Value, config: &Value| {
            let list = written(document, config).unwrap();
            value(&list, "tokenizer.ggml.add_bos_token").cloned()
        };
        assert_eq!(
            adds(&document, &json!({})),
            Some(MetadataValue::Bool(false))
        );
        document["post_processor"] = json!({"type": "Sequence", "processors": [
            {"type": "ByteLevel"},
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>"}}]}]});
        assert_eq!(adds(&document, &json!({})), Some(MetadataValue::Bool(true)));
        let config = json!({"add_bos_token": false});
        assert_eq!(adds(&document, &config), Some(MetadataValue::Bool(false)));
    }

    #[test]
    fn what_the_format_cannot_say_is_refused_with_the_reason() {
        let with = |pointer: &str, value: Value| {
            let mut document = tokenizer(PreTokenizer::SmolLm);
            *document.pointer_mut(pointer).unwrap() = value;
            written(&document, &json!({})).unwrap_err().to_string()
        };
        for (pointer, value, expected) in [
            ("/model/type", json!("Unigram"), "is Unigram"),
            ("/model/byte_fallback", json!(true), "not byte-level"),
            (
                "/model/end_of_word_suffix",
                json!("</w>"),
                "end_of_word_suffix",
            ),
            ("/model/ignore_merges", json!(true), "whole words"),
            (
                "/pre_tokenizer/pretokenizers/1/add_prefix_space",
                json!(true),
                "splits text",
            ),
            ("/pre_tokenizer", json!(null), "splits text"),
            ("/normalizer", json!({"type": "NFC"}), "changes text"),
            ("/added_tokens/0/id", json!(6), "beyond the 6"),
            ("/model/merges/0", json!(["a"]), "no pair"),
        ] {
            let message = with(pointer, value);
            assert!(message.contains(expected), "{pointer}: {message}");
        }
    }
}

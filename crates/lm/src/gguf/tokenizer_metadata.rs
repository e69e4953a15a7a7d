//! The tokenizer's three documents from GGUF metadata.

use serde_json::{Map, Value, json};

use super::config_document::insert_special_token_ids;
use super::metadata::Metadata;
use super::tokenizer_document::{self, PreTokenizer, Vocabulary};
use crate::error::LoadError;

/// See [`super::GgufSource::tokenizer_json`].
pub(super) fn tokenizer_json(metadata: &Metadata) -> Result<Value, LoadError> {
    let model = metadata.get_str("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(LoadError::UnsupportedTokenizer(model.to_owned()));
    }
    let pre = metadata
        .find_str("tokenizer.ggml.pre")?
        .unwrap_or("default");
    let pre = PreTokenizer::from_name(pre)
        .ok_or_else(|| LoadError::UnsupportedTokenizer(format!("{model}, {pre}")))?;
    let vocabulary = Vocabulary {
        tokens: metadata.get_strings("tokenizer.ggml.tokens")?.to_vec(),
        token_types: metadata
            .find_integers("tokenizer.ggml.token_type")?
            .map(<[i64]>::to_vec)
            .unwrap_or_default(),
        merges: metadata.get_strings("tokenizer.ggml.merges")?.to_vec(),
    };
    tokenizer_document::build(&vocabulary, pre)
        .map_err(|what| metadata.corrupt(format!("its tokenizer has {what}")))
}

/// See [`super::GgufSource::tokenizer_config_json`].
pub(super) fn tokenizer_config_json(metadata: &Metadata) -> Result<Value, LoadError> {
    let mut document = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
    });
    let fields = document.as_object_mut().expect("it was written as one");
    for (theirs, ours) in [
        ("bos", "bos_token"),
        ("eos", "eos_token"),
        ("padding", "pad_token"),
        ("unknown", "unk_token"),
    ] {
        let key = format!("tokenizer.ggml.{theirs}_token_id");
        if let Some(id) = metadata.find_usize(&key)? {
            let tokens = metadata.get_strings("tokenizer.ggml.tokens")?;
            let token = tokens.get(id).ok_or_else(|| {
                metadata.corrupt(format!(
                    "`{key}` is {id}, beyond the {} tokens",
                    tokens.len()
                ))
            })?;
            fields.insert(ours.to_owned(), token.as_str().into());
        }
    }
    if let Some(flag) = metadata.find_bool("tokenizer.ggml.add_bos_token")? {
        fields.insert("add_bos_token".to_owned(), flag.into());
    }
    let architecture = metadata.get_str("general.architecture")?;
    if let Some(length) = metadata.find_usize(&format!("{architecture}.context_length"))? {
        fields.insert("model_max_length".to_owned(), length.into());
    }
    if let Some(template) = metadata.find_str("tokenizer.chat_template")? {
        fields.insert("chat_template".to_owned(), template.into());
    }
    Ok(document)
}

/// See [`super::GgufSource::generation_config_json`].
pub(super) fn generation_config_json(metadata: &Metadata) -> Result<Value, LoadError> {
    let mut fields = Map::new();
    insert_special_token_ids(metadata, &mut fields)?;
    // Some models end a turn with another token than a text; both must stop generation.
    let end_of_turn = metadata
        .find_usize("tokenizer.ggml.eot_token_id")?
        .map(Value::from);
    if let (Some(end), Some(turn)) = (fields.get("eos_token_id").cloned(), end_of_turn)
        && end != turn
    {
        fields.insert("eos_token_id".to_owned(), Value::Array(vec![end, turn]));
    }
    Ok(Value::Object(fields))
}

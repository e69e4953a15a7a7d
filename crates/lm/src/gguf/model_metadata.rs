//! GGUF metadata of a model from its configuration: what `config_document` reads, written.

use super::quantize::GgufDtype;
use super::write::{MetadataList, MetadataValue};
use crate::config::{Architecture, ModelConfig};
use crate::error::LoadError;
use crate::rope::{RopeConfig, RopeScaling};

/// Version of the block formats; the same for as long as they exist.
const QUANTIZATION_VERSION: u32 = 2;

/// The name under which GGUF knows the family.
pub(crate) fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        // Told apart by the window only, here as in the reader.
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    }
}

/// What a file is, before what is in it.
pub(crate) fn general(
    config: &ModelConfig,
    kind: &str,
    name: &str,
    dtype: GgufDtype,
) -> MetadataList {
    let mut list = vec![
        (
            "general.architecture".to_owned(),
            MetadataValue::string(architecture_name(config.architecture)),
        ),
        ("general.type".to_owned(), MetadataValue::string(kind)),
        ("general.name".to_owned(), MetadataValue::string(name)),
    ];
    set_dtype(&mut list, dtype);
    list
}

/// Says how the matrices are stored, in the place where that is said already if there is one.
pub(crate) fn set_dtype(list: &mut MetadataList, dtype: GgufDtype) {
    for (key, value) in [
        ("general.file_type", dtype.file_type()),
        ("general.quantization_version", QUANTIZATION_VERSION),
    ] {
        let value = MetadataValue::U32(value);
        match list.iter_mut().find(|(found, _)| found == key) {
            Some(entry) => entry.1 = value,
            None => list.push((key.to_owned(), value)),
        }
    }
}

/// The sizes and variants of the model.
///
/// # Errors
/// [`LoadError::NotGguf`] when the model has one that GGUF has no key for.
pub(crate) fn model(config: &ModelConfig) -> Result<MetadataList, LoadError> {
    let architecture = architecture_name(config.architecture);
    let mut list = Vec::new();
    let mut set = |key: &str, value| list.push((format!("{architecture}.{key}"), value));
    for (key, size) in [
        ("block_count", config.n_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.n_heads),
        ("attention.head_count_kv", config.n_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab_size),
    ] {
        set(key, size_value(size));
    }
    let epsilon = number(config.rms_norm_eps);
    set("attention.layer_norm_rms_epsilon", epsilon);
    set("rope.freq_base", number(config.rope.theta));
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        set("rope.scaling.type", MetadataValue::string("linear"));
        set("rope.scaling.factor", number(factor));
    }
    if let Some(window) = window(config)? {
        set("attention.sliding_window", size_value(window));
    }
    Ok(list)
}

/// The window of all layers, if they have one.
fn window(config: &ModelConfig) -> Result<Option<usize>, LoadError> {
    let mut windows = config.sliding_windows.iter();
    let first = windows.next().copied().flatten();
    let same = windows.all(|window| *window == first);
    match first {
        None if same => Ok(None),
        Some(_) if same && config.architecture == Architecture::Mistral => Ok(first),
        _ => {
            let what = "its layers look back differently far, which the format has no key for";
            Err(LoadError::NotGguf(what.to_owned()))
        }
    }
}

/// Llama 3's scaling, which GGUF has as a tensor: what each frequency is divided by.
///
/// # Errors
/// [`LoadError::NotGguf`] for families that do not read that tensor.
pub(crate) fn rope_divisors(config: &ModelConfig) -> Result<Option<Vec<f32>>, LoadError> {
    let RopeScaling::Llama3 { .. } = config.rope.scaling else {
        return Ok(None);
    };
    if architecture_name(config.architecture) != "llama" {
        let name = config.architecture.model_type();
        let what = format!("only llama models may scale positions as Llama 3 does, not {name}");
        return Err(LoadError::NotGguf(what));
    }
    let plain = RopeConfig {
        theta: config.rope.theta,
        scaling: RopeScaling::None,
    };
    let plain = plain.inverse_frequencies(config.head_dim);
    let scaled = config.rope.inverse_frequencies(config.head_dim);
    let divisors = plain
        .iter()
        .zip(scaled)
        .map(|(plain, scaled)| plain / scaled);
    Ok(Some(divisors.collect()))
}

fn size_value(size: usize) -> MetadataValue {
    MetadataValue::U32(u32::try_from(size).expect("the configuration has bounded it"))
}

#[expect(clippy::cast_possible_truncation, reason = "GGUF keeps these in f32")]
fn number(value: f64) -> MetadataValue {
    MetadataValue::F32(value as f32)
}

//! `config.json` from GGUF metadata.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::config::{Architecture, ModelConfig};
use crate::error::LoadError;
use crate::rope::{RopeConfig, RopeScaling};

/// How far a rotary divisor may be from the one we compute, relatively.
const DIVISOR_TOLERANCE: f32 = 1e-3;

/// The heads of q and k whose rows the converter has interleaved: those of Llama (and Mistral,
/// which GGUF calls llama too), of no other family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InterleavedHeads(Option<(usize, usize)>);

impl InterleavedHeads {
    /// # Errors
    /// When the architecture is not supported, or its head counts are missing or zero.
    pub(super) fn of(metadata: &Metadata) -> Result<Self, LoadError> {
        let keys = Keys::of(metadata)?;
        match keys.name {
            "llama" => Ok(Self(Some(keys.heads()?))),
            _ => Ok(Self(None)),
        }
    }

    /// What a file of this model needs.
    pub(crate) fn of_model(model: &ModelConfig) -> Self {
        match model.architecture {
            Architecture::Llama | Architecture::Mistral => {
                Self(Some((model.n_heads, model.n_kv_heads)))
            }
            Architecture::Qwen2 | Architecture::Qwen3 => Self(None),
        }
    }

    /// Number of heads if the rows of the tensor with this Hugging Face name are interleaved.
    pub(crate) fn for_tensor(self, name: &str) -> Option<usize> {
        let (n_heads, n_kv_heads) = self.0?;
        match name {
            _ if name.contains(".self_attn.q_proj.") => Some(n_heads),
            _ if name.contains(".self_attn.k_proj.") => Some(n_kv_heads),
            _ => None,
        }
    }
}

/// Builds the document. `shape_of` knows the tensors under their Hugging Face names;
/// `rope_divisors` are the values of `rope_freqs.weight`.
///
/// # Errors
/// See [`super::GgufSource::config_json`].
pub(super) fn build<'a>(
    metadata: &Metadata,
    shape_of: &dyn Fn(&str) -> Option<&'a [usize]>,
    rope_divisors: Option<&[f32]>,
) -> Result<Value, LoadError> {
    let keys = Keys::of(metadata)?;
    let architecture = keys.architecture()?;
    let (n_heads, n_kv_heads) = keys.heads()?;
    let hidden_size = keys.get_usize("embedding_length")?;
    let head_dim = keys
        .find_usize("attention.key_length")?
        .unwrap_or(hidden_size / n_heads);
    let embeddings = shape_of("model.embed_tokens.weight")
        .ok_or_else(|| LoadError::MissingTensor("token_embd.weight".to_owned()))?;
    keys.refuse_unsupported(head_dim)?;
    let theta = keys.find_f64("rope.freq_base")?.unwrap_or(10_000.0);
    let mut document = json!({
        "architectures": [architecture.class_name()],
        "model_type": architecture.model_type(),
        "vocab_size": embeddings[0],
        "hidden_size": hidden_size,
        "intermediate_size": keys.get_usize("feed_forward_length")?,
        "num_hidden_layers": keys.get_usize("block_count")?,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": keys.get_usize("context_length")?,
        "rms_norm_eps": keys.get_f64("attention.layer_norm_rms_epsilon")?,
        "rope_theta": theta,
        "attention_bias": shape_of("model.layers.0.self_attn.q_proj.bias").is_some(),
        "mlp_bias": shape_of("model.layers.0.mlp.gate_proj.bias").is_some(),
        "tie_word_embeddings": shape_of("lm_head.weight").is_none(),
        "torch_dtype": "float32",
    });
    let fields = document.as_object_mut().expect("it was written as one");
    if let Some(scaling) = keys.rope_scaling(theta, head_dim, rope_divisors)? {
        fields.insert("rope_scaling".to_owned(), scaling);
    }
    if let Some(window) = keys
        .find_usize("attention.sliding_window")?
        .filter(|n| *n > 0)
    {
        fields.insert("sliding_window".to_owned(), window.into());
    }
    insert_special_token_ids(metadata, fields)?;
    Ok(document)
}

/// `bos_token_id`, `eos_token_id` and `pad_token_id`, where the file has them.
pub(super) fn insert_special_token_ids(
    metadata: &Metadata,
    fields: &mut Map<String, Value>,
) -> Result<(), LoadError> {
    for (theirs, ours) in [
        ("bos", "bos_token_id"),
        ("eos", "eos_token_id"),
        ("padding", "pad_token_id"),
    ] {
        if let Some(id) = metadata.find_usize(&format!("tokenizer.ggml.{theirs}_token_id"))? {
            fields.insert(ours.to_owned(), id.into());
        }
    }
    Ok(())
}

/// The metadata keys of one architecture, which all begin with its name.
struct Keys<'a> {
    metadata: &'a Metadata,
    name: &'a str,
}

impl<'a> Keys<'a> {
    fn of(metadata: &'a Metadata) -> Result<Self, LoadError> {
        let keys = Self {
            metadata,
            name: metadata.get_str("general.architecture")?,
        };
        keys.architecture().map(|_| keys)
    }

    fn architecture(&self) -> Result<Architecture, LoadError> {
        match self.name {
            // GGUF tells Mistral from Llama by the window only, and so does the arithmetic.
            "llama"
                if self
                    .find_usize("attention.sliding_window")?
                    .is_some_and(|n| n > 0) =>
            {
                Ok(Architecture::Mistral)
            }
            "llama" => Ok(Architecture::Llama),
            "qwen2" => Ok(Architecture::Qwen2),
            "qwen3" => Ok(Architecture::Qwen3),
            other => Err(LoadError::UnsupportedArchitecture(other.to_owned())),
        }
    }

    /// Query heads and key heads, neither of them zero.
    fn heads(&self) -> Result<(usize, usize), LoadError> {
        let n_heads = self.get_usize("attention.head_count")?;
        let n_kv_heads = self
            .find_usize("attention.head_count_kv")?
            .unwrap_or(n_heads);
        let sane = 1..=1 << 16;
        if !sane.contains(&n_heads) || !sane.contains(&n_kv_heads) {
            return Err(self
                .metadata
                .corrupt(format!("it claims {n_heads}/{n_kv_heads} heads")));
        }
        Ok((n_heads, n_kv_heads))
    }

    /// Variants that the metadata of a supported architecture can announce.
    fn refuse_unsupported(&self, head_dim: usize) -> Result<(), LoadError> {
        if self
            .find_usize("expert_count")?
            .is_some_and(|count| count > 0)
        {
            let name = format!("{} with experts", self.name);
            return Err(LoadError::UnsupportedArchitecture(name));
        }
        let value_dim = self
            .find_usize("attention.value_length")?
            .unwrap_or(head_dim);
        if value_dim != head_dim {
            let what = format!("its keys have {head_dim} columns and its values {value_dim}");
            return Err(self.metadata.corrupt(what));
        }
        let turned = self.find_usize("rope.dimension_count")?.unwrap_or(head_dim);
        if turned != head_dim {
            let name = format!("{turned} of {head_dim} columns turned");
            return Err(LoadError::UnsupportedRope(name));
        }
        Ok(())
    }

    fn rope_scaling(
        &self,
        theta: f64,
        head_dim: usize,
        divisors: Option<&[f32]>,
    ) -> Result<Option<Value>, LoadError> {
        let kind = self.find_str("rope.scaling.type")?.unwrap_or("none");
        match (kind, divisors) {
            ("none" | "linear", Some(divisors)) => llama3_scaling(theta, head_dim, divisors),
            ("none", None) => Ok(None),
            ("linear", None) => {
                let factor = self.get_f64("rope.scaling.factor")?;
                Ok(Some(json!({"rope_type": "linear", "factor": factor})))
            }
            (other, _) => Err(LoadError::UnsupportedRope(other.to_owned())),
        }
    }

    fn find_str(&self, key: &str) -> Result<Option<&'a str>, LoadError> {
        self.metadata.find_str(&format!("{}.{key}", self.name))
    }

    fn find_usize(&self, key: &str) -> Result<Option<usize>, LoadError> {
        self.metadata.find_usize(&format!("{}.{key}", self.name))
    }

    fn get_usize(&self, key: &str) -> Result<usize, LoadError> {
        self.metadata.get_usize(&format!("{}.{key}", self.name))
    }

    fn find_f64(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.metadata.find_f64(&format!("{}.{key}", self.name))
    }

    fn get_f64(&self, key: &str) -> Result<f64, LoadError> {
        self.metadata.get_f64(&format!("{}.{key}", self.name))
    }
}

/// GGUF keeps the divisors that Llama 3's scaling comes to, not its parameters. All Llama 3 models
/// share all parameters but the factor, which is the largest divisor; that the parameters give
/// these divisors is checked.
fn llama3_scaling(
    theta: f64,
    head_dim: usize,
    divisors: &[f32],
) -> Result<Option<Value>, LoadError> {
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max).round());
    let (low_freq_factor, high_freq_factor) = (1.0, 4.0);
    let original_max_position_embeddings = 8192.0;
    let scaling = RopeScaling::Llama3 {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings,
    };
    let scaled = RopeConfig { theta, scaling }.inverse_frequencies(head_dim);
    let plain = RopeConfig {
        theta,
        scaling: RopeScaling::None,
    }
    .inverse_frequencies(head_dim);
    let expected = plain
        .iter()
        .zip(&scaled)
        .map(|(plain, scaled)| plain / scaled);
    let agrees = divisors.len() == plain.len()
        && divisors
            .iter()
            .zip(expected)
            .all(|(found, expected)| (found / expected - 1.0).abs() < DIVISOR_TOLERANCE);
    if !agrees {
        return Err(LoadError::UnsupportedRope("rope_freqs.weight".to_owned()));
    }
    Ok(Some(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low_freq_factor,
        "high_freq_factor": high_freq_factor,
        "original_max_position_embeddings": 8192,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_is_recognised_by_its_divisors() {
        let scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        let frequencies = |scaling| {
            RopeConfig {
                theta: 500_000.0,
                scaling,
            }
            .inverse_frequencies(64)
        };
        let plain = frequencies(RopeScaling::None);
        let divisors: Vec<f32> = plain
            .iter()
            .zip(frequencies(scaling))
            .map(|(plain, scaled)| plain / scaled)
            .collect();
        let document = llama3_scaling(500_000.0, 64, &divisors).unwrap().unwrap();
        assert_eq!(document["factor"], 32.0);
        let mut other = divisors.clone();
        other[20] *= 1.5;
        assert!(llama3_scaling(500_000.0, 64, &other).is_err());
        assert!(llama3_scaling(500_000.0, 64, &divisors[1..]).is_err());
        assert!(llama3_scaling(500_000.0, 64, &[f32::NAN; 32]).is_err());
    }
}

//! What a base model is, as its `config.json` says: family, sizes, biases, windows.
//!
//! Everything is checked here, before anything is allocated; past this module sizes are trusted.

mod document;

use std::path::Path;

use serde_json::Value;

use crate::error::LoadError;
use crate::rope::RopeConfig;
use document::ConfigDocument;

/// A family of decoders; they differ in biases, windows and norms, not in outline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Architecture {
    /// The `model_type` of `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The class name that `architectures` lists.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    fn from_model_type(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.model_type() == name)
    }

    fn from_class_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.class_name() == name)
    }
}

/// Sizes and variants of one base model.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a variant of its own in config.json"
)]
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope: RopeConfig,
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    /// Bias on the q, k and v projections.
    pub qkv_bias: bool,
    /// Bias on the attention output projection.
    pub output_bias: bool,
    /// Bias on gate, up and down.
    pub mlp_bias: bool,
    /// An RMS norm over each head of q and k (Qwen3).
    pub qk_norm: bool,
    /// For each layer, how many positions back it may look (itself included); `None` is all.
    pub sliding_windows: Vec<Option<usize>>,
    /// `bos_token_id`, `eos_token_id` and `pad_token_id` as given; the model itself needs none.
    pub special_token_ids: SpecialTokenIds,
}

/// Token ids that `config.json` carries along. `eos` may be a number or a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpecialTokenIds {
    pub bos: Option<Value>,
    pub eos: Option<Value>,
    pub pad: Option<Value>,
}

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Names the architecture or rope scaling that is not supported, or the key whose value is
    /// missing, contradictory or absurd.
    pub fn from_json(bytes: &[u8]) -> Result<Self, LoadError> {
        let document: ConfigDocument =
            serde_json::from_slice(bytes).map_err(|source| LoadError::Json {
                file: Path::new("config.json").to_owned(),
                source,
            })?;
        let config = document.into_config()?;
        config.check()?;
        Ok(config)
    }

    /// The `config.json` that Hugging Face's libraries read back as this model, in f32.
    pub fn to_json(&self) -> Value {
        document::to_json(self)
    }

    /// Columns of the concatenated query heads.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of the concatenated key (or value) heads.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Parameters of the whole model, biases and head norms aside: they are too few to matter.
    /// A tied head counts once.
    pub fn n_params(&self) -> u64 {
        let attention = 2 * self.hidden_size * (self.q_width() + self.kv_width());
        let mlp = 3 * self.hidden_size * self.intermediate_size;
        let layer = attention + mlp + 2 * self.hidden_size;
        let n_embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        let embeddings = n_embeddings * self.vocab_size * self.hidden_size;
        (self.n_layers * layer + embeddings + self.hidden_size) as u64
    }

    fn check(&self) -> Result<(), LoadError> {
        let bounds = [
            ("vocab_size", self.vocab_size, 1 << 20),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("num_hidden_layers", self.n_layers, 1 << 10),
            ("num_attention_heads", self.n_heads, 1 << 10),
            ("num_key_value_heads", self.n_kv_heads, 1 << 10),
            ("head_dim", self.head_dim, 1 << 10),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 24,
            ),
        ];
        for (key, value, limit) in bounds {
            if value == 0 || value > limit {
                return Err(bad(key, format!("is {value}, expected 1 to {limit}")));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let what = format!("is {}, not a divisor of {}", self.n_kv_heads, self.n_heads);
            return Err(bad("num_key_value_heads", what));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(bad(
                "head_dim",
                format!("is {}, which is odd", self.head_dim),
            ));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(bad("rms_norm_eps", format!("is {}", self.rms_norm_eps)));
        }
        self.rope.check()
    }
}

/// `config.json` says something that cannot be.
pub(crate) fn bad(key: &'static str, what: impl Into<String>) -> LoadError {
    LoadError::BadConfig {
        key,
        what: what.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rope::RopeScaling;

    fn smol() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100_000,
            "tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": [2, 3]
        })
    }

    fn with(mut value: Value, changes: Value) -> Value {
        let Value::Object(changes) = changes else {
            panic!("not an object")
        };
        for (key, change) in changes {
            value[key] = change;
        }
        value
    }

    fn parse(value: &Value) -> Result<ModelConfig, LoadError> {
        ModelConfig::from_json(value.to_string().as_bytes())
    }

    #[test]
    fn head_dim_is_derived_when_absent() {
        let config = parse(&smol()).unwrap();
        assert_eq!(
            (config.head_dim, config.q_width(), config.kv_width()),
            (64, 576, 192)
        );
        assert!((config.rope.theta - 100_000.0).abs() < 1e-9);
        assert!(config.sliding_windows.iter().all(Option::is_none));
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let qwen = json!({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"],
            "use_sliding_window": true, "sliding_window": 128, "max_window_layers": 10});
        let llama3 = json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}});
        for changes in [json!({}), qwen, llama3] {
            let config = parse(&with(smol(), changes)).unwrap();
            assert_eq!(parse(&config.to_json()).unwrap(), config);
        }
    }

    #[test]
    fn an_unsupported_architecture_is_refused_by_name() {
        let value = with(
            smol(),
            json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}),
        );
        let message = parse(&value).unwrap_err().to_string();
        assert!(message.contains("GPT2LMHeadModel"), "{message}");
    }

    #[test]
    fn an_unsupported_rope_scaling_is_refused_by_name() {
        let value = with(
            smol(),
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}),
        );
        let message = parse(&value).unwrap_err().to_string();
        assert!(message.contains("yarn"), "{message}");
    }

    #[test]
    fn newer_rope_parameters_mean_the_same() {
        let mut value = with(
            smol(),
            json!({"rope_parameters": {"rope_type": "llama3",
            "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
        );
        value.as_object_mut().unwrap().remove("rope_theta");
        let config = parse(&value).unwrap();
        assert!((config.rope.theta - 500_000.0).abs() < 1e-9);
        assert!(matches!(config.rope.scaling, RopeScaling::Llama3 { .. }));
    }

    #[test]
    fn each_family_has_its_own_biases_and_windows() {
        let mistral = json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"],
            "sliding_window": 4096});
        let mistral = parse(&with(smol(), mistral)).unwrap();
        assert_eq!(mistral.sliding_windows[0], Some(4096));
        let qwen2 = json!({"model_type": "qwen2", "architectures": null, "sliding_window": 64});
        let qwen2 = parse(&with(smol(), qwen2)).unwrap();
        assert!(qwen2.qkv_bias && !qwen2.output_bias && qwen2.sliding_windows[0].is_none());
        let qwen3 = json!({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"],
            "head_dim": 128});
        let qwen3 = parse(&with(smol(), qwen3)).unwrap();
        assert!(qwen3.qk_norm && !qwen3.qkv_bias && qwen3.q_width() == 9 * 128);
    }

    #[test]
    fn impossible_sizes_are_refused_by_key() {
        for (key, value) in [
            ("hidden_size", json!(0)),
            ("num_key_value_heads", json!(4)),
            ("vocab_size", json!(1_u64 << 40)),
            ("head_dim", json!(63)),
            ("rms_norm_eps", json!(-1.0)),
            ("rope_theta", json!(0.0)),
            ("hidden_act", json!("gelu")),
        ] {
            let error = parse(&with(smol(), json!({ key: value })))
                .unwrap_err()
                .to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}

//! `config.json` as Hugging Face's libraries write it, old keys and new, and the way back.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Architecture, ModelConfig, SpecialTokenIds, bad};
use crate::error::LoadError;
use crate::rope::{RopeConfig, RopeScaling};

/// The keys of `config.json` that change what a supported model computes.
#[derive(Debug, Deserialize)]
pub(super) struct ConfigDocument {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeDocument>,
    /// What transformers 5 writes in place of `rope_theta` and `rope_scaling`.
    rope_parameters: Option<RopeDocument>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
    pad_token_id: Option<Value>,
    quantization_config: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct RopeDocument {
    rope_type: Option<String>,
    /// The old name of `rope_type`.
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl ConfigDocument {
    pub(super) fn into_config(self) -> Result<ModelConfig, LoadError> {
        let architecture = self.architecture()?;
        self.refuse_unsupported()?;
        let hidden_size = required("hidden_size", self.hidden_size)?;
        let n_heads = required("num_attention_heads", self.num_attention_heads)?;
        let n_layers = required("num_hidden_layers", self.num_hidden_layers)?;
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None if n_heads > 0 && hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
            None => return Err(bad("num_attention_heads", "does not divide hidden_size")),
        };
        let bias = self.attention_bias.unwrap_or(false);
        Ok(ModelConfig {
            architecture,
            vocab_size: required("vocab_size", self.vocab_size)?,
            hidden_size,
            intermediate_size: required("intermediate_size", self.intermediate_size)?,
            n_layers,
            n_heads,
            n_kv_heads: self.num_key_value_heads.unwrap_or(n_heads),
            head_dim,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope: self.rope()?,
            max_position_embeddings: self.max_position_embeddings.unwrap_or(2048),
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            qkv_bias: match architecture {
                Architecture::Llama | Architecture::Qwen3 => bias,
                Architecture::Mistral => false,
                Architecture::Qwen2 => true,
            },
            output_bias: match architecture {
                Architecture::Llama | Architecture::Qwen3 => bias,
                Architecture::Mistral | Architecture::Qwen2 => false,
            },
            mlp_bias: architecture == Architecture::Llama && self.mlp_bias.unwrap_or(false),
            qk_norm: architecture == Architecture::Qwen3,
            sliding_windows: self.sliding_windows(architecture, n_layers)?,
            special_token_ids: SpecialTokenIds {
                bos: self.bos_token_id,
                eos: self.eos_token_id,
                pad: self.pad_token_id,
            },
        })
    }

    /// `architectures` decides when it is there: derived models keep the `model_type` of a
    /// family whose computation they change.
    fn architecture(&self) -> Result<Architecture, LoadError> {
        let class_name = self.architectures.as_ref().and_then(|names| names.first());
        match (class_name, &self.model_type) {
            (Some(name), _) => Architecture::from_class_name(name)
                .ok_or_else(|| LoadError::UnsupportedArchitecture(name.clone())),
            (None, Some(name)) => Architecture::from_model_type(name)
                .ok_or_else(|| LoadError::UnsupportedArchitecture(name.clone())),
            (None, None) => Err(bad("model_type", "is missing")),
        }
    }

    fn refuse_unsupported(&self) -> Result<(), LoadError> {
        if let Some(activation) = self.hidden_act.as_deref().filter(|name| *name != "silu") {
            return Err(bad(
                "hidden_act",
                format!("is `{activation}`, only `silu` is supported"),
            ));
        }
        if self
            .quantization_config
            .as_ref()
            .is_some_and(|value| !value.is_null())
        {
            return Err(bad(
                "quantization_config",
                "is set; quantised folders are not supported",
            ));
        }
        Ok(())
    }

    fn rope(&self) -> Result<RopeConfig, LoadError> {
        let newer = self.rope_parameters.as_ref();
        let theta = newer
            .and_then(|rope| rope.rope_theta)
            .or(self.rope_theta)
            .unwrap_or(10_000.0);
        let scaling = match newer.or(self.rope_scaling.as_ref()) {
            Some(document) => document.scaling(self.max_position_embeddings)?,
            None => RopeScaling::None,
        };
        Ok(RopeConfig { theta, scaling })
    }

    fn sliding_windows(
        &self,
        architecture: Architecture,
        n_layers: usize,
    ) -> Result<Vec<Option<usize>>, LoadError> {
        // Checked again with the other sizes; here it bounds the list below.
        if n_layers > 1 << 10 {
            return Err(bad("num_hidden_layers", format!("is {n_layers}")));
        }
        let window = match architecture {
            Architecture::Llama => None,
            Architecture::Mistral => self.sliding_window,
            Architecture::Qwen2 | Architecture::Qwen3 => self
                .sliding_window
                .filter(|_| self.use_sliding_window.unwrap_or(false)),
        };
        if window == Some(0) {
            return Err(bad("sliding_window", "is 0"));
        }
        if let (Some(types), Some(window)) = (&self.layer_types, window) {
            if types.len() != n_layers {
                return Err(bad("layer_types", format!("lists {} layers", types.len())));
            }
            return types
                .iter()
                .map(|kind| layer_window(kind, window))
                .collect();
        }
        let first = match architecture {
            Architecture::Qwen2 | Architecture::Qwen3 => self.max_window_layers.unwrap_or(28),
            Architecture::Llama | Architecture::Mistral => 0,
        };
        Ok((0..n_layers)
            .map(|layer| window.filter(|_| layer >= first))
            .collect())
    }
}

impl RopeDocument {
    fn scaling(&self, max_position_embeddings: Option<usize>) -> Result<RopeScaling, LoadError> {
        let kind = self
            .rope_type
            .as_deref()
            .or(self.old_type.as_deref())
            .unwrap_or("default");
        let number = |key, value: Option<f64>| value.ok_or_else(|| bad(key, "is missing"));
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear {
                factor: number("factor", self.factor)?,
            }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: number("factor", self.factor)?,
                low_freq_factor: number("low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: number("high_freq_factor", self.high_freq_factor)?,
                original_max_position_embeddings: match self.original_max_position_embeddings {
                    Some(value) => value,
                    // transformers falls back on the model's own length.
                    #[expect(clippy::cast_precision_loss, reason = "a context length")]
                    None => max_position_embeddings.unwrap_or(2048) as f64,
                },
            }),
            other => Err(LoadError::UnsupportedRope(other.to_owned())),
        }
    }
}

fn layer_window(kind: &str, window: usize) -> Result<Option<usize>, LoadError> {
    match kind {
        "full_attention" => Ok(None),
        "sliding_attention" => Ok(Some(window)),
        other => Err(bad(
            "layer_types",
            format!("has `{other}`, which is not supported"),
        )),
    }
}

fn required(key: &'static str, value: Option<usize>) -> Result<usize, LoadError> {
    value.ok_or_else(|| bad(key, "is missing"))
}

/// See [`ModelConfig::to_json`]. Written with the older rope keys, which every version reads.
pub(super) fn to_json(config: &ModelConfig) -> Value {
    let mut document = json!({
        "architectures": [config.architecture.class_name()],
        "model_type": config.architecture.model_type(),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope.theta,
        "rope_scaling": rope_scaling(&config.rope.scaling),
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": config.output_bias,
        "mlp_bias": config.mlp_bias,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": true,
        "torch_dtype": "float32",
    });
    let ids = &config.special_token_ids;
    for (key, id) in [("bos", &ids.bos), ("eos", &ids.eos), ("pad", &ids.pad)] {
        if let Some(id) = id {
            document[format!("{key}_token_id")] = id.clone();
        }
    }
    write_windows(config, &mut document);
    document
}

fn write_windows(config: &ModelConfig, document: &mut Value) {
    let Some(window) = config.sliding_windows.iter().flatten().next() else {
        return;
    };
    let kinds: Vec<_> = config
        .sliding_windows
        .iter()
        .map(|window| {
            if window.is_some() {
                "sliding_attention"
            } else {
                "full_attention"
            }
        })
        .collect();
    document["sliding_window"] = json!(window);
    document["layer_types"] = json!(kinds);
    if config.architecture != Architecture::Mistral {
        let first = config
            .sliding_windows
            .iter()
            .take_while(|window| window.is_none())
            .count();
        document["use_sliding_window"] = json!(true);
        document["max_window_layers"] = json!(first);
    }
}

fn rope_scaling(scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    }
}

//! Tiny random models of every family, for tests that need no file.

use std::collections::HashMap;

use lm::{CausalLm, Device, LoadError, LoraConfig, ModelConfig, Target, WeightSource};
use serde_json::{Value, json};

/// Random weights, a function of the tensor's name.
#[derive(Default)]
pub(crate) struct RandomWeights {
    /// Tensors that are given instead.
    pub(crate) replaced: HashMap<String, Vec<f32>>,
}

impl WeightSource for RandomWeights {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        if let Some(values) = self.replaced.get(name) {
            return Ok(values.clone());
        }
        let n: usize = shape.iter().product();
        let columns = shape[shape.len() - 1];
        let values = random(name, n);
        Ok(match shape.len() {
            1 if name.ends_with("bias") => values,
            1 => values.iter().map(|value| 1.0 + 0.3 * value).collect(),
            _ if name.contains("embed") => values,
            _ => values
                .iter()
                .map(|value| value * (3.0 / width(columns)).sqrt())
                .collect(),
        })
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }
}

fn width(n: usize) -> f32 {
    f32::from(u16::try_from(n).unwrap())
}

/// `n` numbers in [-1, 1), a function of `name`.
pub(crate) fn random(name: &str, n: usize) -> Vec<f32> {
    let mut state = name
        .bytes()
        .fold(7_u64, |state, byte| step(state ^ u64::from(byte)));
    (0..n)
        .map(|_| {
            state = step(state);
            f32::from(u16::try_from(state >> 48).unwrap()) / 32_768.0 - 1.0
        })
        .collect()
}

fn step(state: u64) -> u64 {
    let x = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    x ^ (x >> 29)
}

/// Two layers, 24 wide, four query heads over two key/value heads, with these changes.
pub(crate) fn config(changes: Value) -> ModelConfig {
    let mut document = json!({
        "model_type": "llama", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 100.0, "max_position_embeddings": 2000,
    });
    let Value::Object(changes) = changes else {
        panic!("changes are an object")
    };
    for (key, value) in changes {
        document[key] = value;
    }
    ModelConfig::from_json(document.to_string().as_bytes()).unwrap()
}

pub(crate) fn model(changes: Value) -> CausalLm {
    build(&config(changes), RandomWeights::default())
}

pub(crate) fn build(config: &ModelConfig, mut weights: RandomWeights) -> CausalLm {
    CausalLm::from_source(config, &mut weights, &Device::cpu(), lm::Precision::F32).unwrap()
}

/// One configuration of each family, with all that sets it apart.
pub(crate) fn families() -> [Value; 5] {
    [
        json!({}),
        json!({"model_type": "llama", "attention_bias": true, "mlp_bias": true,
            "tie_word_embeddings": true, "rope_scaling": {"rope_type": "llama3", "factor": 4.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 20}}),
        json!({"model_type": "mistral", "sliding_window": 3}),
        json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 4,
            "max_window_layers": 1}),
        json!({"model_type": "qwen3", "head_dim": 6}),
    ]
}

pub(crate) fn lora() -> LoraConfig {
    LoraConfig {
        rank: 3,
        alpha: 6.0,
        use_rslora: false,
        use_dora: false,
        dropout: 0.0,
        target_modules: Target::ALL.to_vec(),
    }
}

pub(crate) fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter()
        .zip(right)
        .map(|(l, r)| (l - r).abs())
        .fold(0.0, f32::max)
}

//! Base models of a real model's shape with random weights: what speed and memory are measured on.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::bf16;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    inverse_root, pretty, splitmix64, tiny_config, tiny_tokenizer_config, tiny_tokenizer_json,
    uniform,
};
use crate::config::ModelConfig;

/// Numbers that are made and written at a time.
const CHUNK: usize = 1 << 22;

/// `config.json` of the model that `name` stands for: `llama-1b`, `llama-8b`, or `tiny`, which tests use.
pub fn shape(name: &str) -> Option<Value> {
    let [hidden, inner, layers, head, tied] = match name {
        "llama-1b" => [2048, 8192, 16, 64, 1],
        "llama-8b" => [4096, 14_336, 32, 128, 0],
        "tiny" => return Some(tiny_config()),
        _ => return None,
    };
    Some(json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": head,
        "vocab_size": 128_256,
        "max_position_embeddings": 131_072,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        "tie_word_embeddings": tied == 1,
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "bfloat16",
    }))
}

/// Writes a base model of this `config.json` into `dir`, which is created: bf16, the tokenizer of 300 bytes and pairs of
/// bytes whatever its vocabulary. The weights are a function of `seed`; no more than a few million are in memory at once.
///
/// # Errors
/// When writing fails.
///
/// # Panics
/// When `config` is not one of [`shape`]'s.
pub fn write_random_base(dir: &Path, config: &Value, seed: u64) -> io::Result<()> {
    let bytes = pretty(config);
    let model = ModelConfig::from_json(&bytes).expect("the shapes are sound");
    fs::create_dir_all(dir)?;
    fs::write(dir.join("config.json"), &bytes)?;
    fs::write(dir.join("tokenizer.json"), tiny_tokenizer_json())?;
    fs::write(
        dir.join("tokenizer_config.json"),
        pretty(&tiny_tokenizer_config()),
    )?;
    fs::write(
        dir.join("generation_config.json"),
        pretty(&json!({"bos_token_id": 1, "eos_token_id": 2})),
    )?;
    let mut out = BufWriter::new(File::create(dir.join("model.safetensors"))?);
    let tensors = model.tensor_shapes();
    write_header(&mut out, &tensors)?;
    for (name, shape) in &tensors {
        write_tensor(&mut out, name, shape, seed)?;
    }
    out.flush()
}

fn write_header(out: &mut impl Write, tensors: &[(String, Vec<usize>)]) -> io::Result<()> {
    let mut header = Map::new();
    let mut begin = 0;
    for (name, shape) in tensors {
        let end = begin + 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
        begin = end;
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

fn write_tensor(out: &mut impl Write, name: &str, shape: &[usize], seed: u64) -> io::Result<()> {
    let key = name.bytes().fold(splitmix64(seed), |key, byte| {
        splitmix64(key ^ u64::from(byte))
    });
    let is_norm = shape.len() == 1;
    // Products keep the size of what they read.
    let widest = 3f32.sqrt() * inverse_root(shape[shape.len() - 1]);
    let n: usize = shape.iter().product();
    for first in (0..n).step_by(CHUNK) {
        let numbers = first..n.min(first + CHUNK);
        let bytes: Vec<[u8; 2]> = numbers
            .into_par_iter()
            .map(|index| {
                let number = uniform(splitmix64(key ^ index as u64)) * widest;
                bf16::from_f32(if is_norm { 1.0 } else { number }).to_le_bytes()
            })
            .collect();
        out.write_all(bytes.as_flattened())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BaseFiles, Device, Precision};

    #[test]
    fn a_random_base_loads_and_its_weights_are_a_function_of_the_seed() {
        let root = tempfile::TempDir::new().unwrap();
        let fingerprint = |name: &str, seed| {
            let dir = root.path().join(name);
            write_random_base(&dir, &shape("tiny").unwrap(), seed).unwrap();
            let files = BaseFiles::open(&dir).unwrap();
            files.load(&Device::cpu(), Precision::Bf16).unwrap();
            files.fingerprint().unwrap()
        };
        assert_eq!(fingerprint("a", 1), fingerprint("b", 1));
        assert_ne!(fingerprint("a", 1), fingerprint("c", 2));
    }

    #[test]
    fn the_shapes_have_as_many_parameters_as_their_names_say() {
        for (name, billions) in [("llama-1b", 1.24), ("llama-8b", 8.03)] {
            let config = ModelConfig::from_json(&pretty(&shape(name).unwrap())).unwrap();
            #[expect(clippy::cast_precision_loss, reason = "a rough number")]
            let found = config.n_params() as f64 / 1e9;
            assert!(
                (found - billions).abs() < 0.01,
                "{name} has {found} billion"
            );
        }
        assert_eq!(shape("llama-70b"), None);
    }
}

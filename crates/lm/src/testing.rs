//! Tiny models and files for tests, in this crate and in those that build on it (feature
//! `testing`).
//!
//! Everything is a function of its seed, and everything panics when writing fails.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::gguf::tokenizer_document::{self, PreTokenizer, Vocabulary};
use crate::safetensors_file::write_header;

mod gguf_writer;
pub mod random_base;
mod tiny_tokenizer;

pub use crate::gguf::MetadataValue;
pub use gguf_writer::GgufWriter;

/// A tensor as the writers take it: name, shape, values row by row.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Width of the tiny model.
const D_MODEL: usize = 32;
const D_FFN: usize = 64;
const N_LAYERS: usize = 2;
const N_HEADS: usize = 4;
const N_KV_HEADS: usize = 2;
const HEAD_DIM: usize = D_MODEL / N_HEADS;
/// `ChatML` as SmolLM2 and Qwen2.5 write it, without a default system message.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' \
    + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Writes a base model in Hugging Face layout into `dir`, which is created: a Llama of two layers,
/// 32 wide, with random weights and a byte-level BPE vocabulary of 300 with the `ChatML` tokens.
///
/// # Panics
/// When a file cannot be written.
pub fn write_tiny_base(dir: &Path, seed: u64) {
    fs::create_dir_all(dir).expect("the directory can be created");
    let write = |name: &str, bytes: &[u8]| {
        fs::write(dir.join(name), bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    write("config.json", &pretty(&tiny_config()));
    write(
        "generation_config.json",
        &pretty(&json!({"bos_token_id": 1, "eos_token_id": 2})),
    );
    write("tokenizer.json", &tiny_tokenizer_json());
    write("tokenizer_config.json", &pretty(&tiny_tokenizer_config()));
    write(
        "model.safetensors",
        &owned_safetensors_bytes(&tiny_tensors(seed)),
    );
}

fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("values serialise")
}

/// Writes the model of [`write_tiny_base`] as one GGUF file, with q and k rows in GGUF's order.
///
/// # Panics
/// When the file cannot be written.
pub fn write_tiny_gguf(path: &Path, seed: u64) {
    fs::write(path, tiny_gguf(seed).bytes()).expect("the file can be written");
}

/// The writer behind [`write_tiny_gguf`], for tests that change something first.
pub fn tiny_gguf(seed: u64) -> GgufWriter {
    let vocabulary = tiny_tokenizer::vocabulary();
    let token_types = vocabulary
        .token_types
        .iter()
        .map(|&t| t.try_into().expect("small"))
        .collect();
    let mut writer = GgufWriter::new("llama");
    for (key, value) in [
        ("block_count", N_LAYERS),
        ("context_length", 512),
        ("embedding_length", D_MODEL),
        ("feed_forward_length", D_FFN),
        ("attention.head_count", N_HEADS),
        ("attention.head_count_kv", N_KV_HEADS),
        ("rope.dimension_count", HEAD_DIM),
    ] {
        writer.architecture_u32(key, u32::try_from(value).expect("small"));
    }
    writer.set(
        "llama.attention.layer_norm_rms_epsilon",
        MetadataValue::F32(1e-5),
    );
    writer.set("llama.rope.freq_base", MetadataValue::F32(10_000.0));
    writer.set("tokenizer.ggml.model", MetadataValue::string("gpt2"));
    writer.set("tokenizer.ggml.pre", MetadataValue::string("smollm"));
    writer.set(
        "tokenizer.ggml.tokens",
        MetadataValue::Strings(vocabulary.tokens),
    );
    writer.set(
        "tokenizer.ggml.merges",
        MetadataValue::Strings(vocabulary.merges),
    );
    writer.set(
        "tokenizer.ggml.token_type",
        MetadataValue::I32s(token_types),
    );
    writer.set("tokenizer.ggml.bos_token_id", MetadataValue::U32(1));
    writer.set("tokenizer.ggml.eos_token_id", MetadataValue::U32(2));
    writer.set("tokenizer.ggml.padding_token_id", MetadataValue::U32(2));
    writer.set("tokenizer.ggml.unknown_token_id", MetadataValue::U32(0));
    writer.set(
        "tokenizer.chat_template",
        MetadataValue::string(CHAT_TEMPLATE),
    );
    for (name, shape, values) in tiny_tensors(seed) {
        writer.hugging_face_tensor(&name, &shape, &values, N_HEADS, N_KV_HEADS);
    }
    writer
}

/// The bytes of a safetensors file that holds `tensors` as f32.
///
/// # Panics
/// When a shape and its values disagree.
pub fn safetensors_bytes(tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let entries = tensors
        .iter()
        .map(|(name, shape, _)| (*name, shape.as_slice()));
    write_header(&mut bytes, entries).expect("a Vec takes all bytes");
    for (name, shape, values) in tensors {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

fn owned_safetensors_bytes(tensors: &[NamedTensor]) -> Vec<u8> {
    let borrowed: Vec<_> = tensors
        .iter()
        .map(|(n, s, v)| (n.as_str(), s.clone(), v.clone()))
        .collect();
    safetensors_bytes(&borrowed)
}

/// `config.json` of the tiny model.
pub fn tiny_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": D_MODEL,
        "intermediate_size": D_FFN,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": tiny_tokenizer::VOCAB_SIZE,
        "max_position_embeddings": 512,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "float32",
    })
}

/// `tokenizer.json` of the tiny model.
///
/// # Panics
/// Never: the vocabulary is constant and sound.
pub fn tiny_tokenizer_json() -> Vec<u8> {
    let vocabulary: Vocabulary = tiny_tokenizer::vocabulary();
    let document = tokenizer_document::build(&vocabulary, PreTokenizer::SmolLm);
    serde_json::to_vec(&document.expect("the vocabulary is sound")).expect("values serialise")
}

/// `tokenizer_config.json` of the tiny model.
pub fn tiny_tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "add_bos_token": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 512,
        "chat_template": CHAT_TEMPLATE,
    })
}

/// All tensors of the tiny model under their Hugging Face names.
pub fn tiny_tensors(seed: u64) -> Vec<NamedTensor> {
    let d_kv = N_KV_HEADS * HEAD_DIM;
    // Wide enough that the tied head can put most of the probability on one token: a tiny model
    // with the customary 0.02 could hardly be trained through an adapter.
    let mut tensors = vec![matrix(
        seed,
        "model.embed_tokens.weight",
        VOCAB,
        D_MODEL,
        0.3,
    )];
    for layer in 0..N_LAYERS {
        let mut linear = |name: &str, rows: usize, columns: usize| {
            let name = format!("model.layers.{layer}.{name}.weight");
            tensors.push(matrix(seed, &name, rows, columns, inverse_root(columns)));
        };
        linear("self_attn.q_proj", D_MODEL, D_MODEL);
        linear("self_attn.k_proj", d_kv, D_MODEL);
        linear("self_attn.v_proj", d_kv, D_MODEL);
        linear("self_attn.o_proj", D_MODEL, D_MODEL);
        linear("mlp.gate_proj", D_FFN, D_MODEL);
        linear("mlp.up_proj", D_FFN, D_MODEL);
        linear("mlp.down_proj", D_MODEL, D_FFN);
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push(norm_weight(
                seed,
                &format!("model.layers.{layer}.{norm}.weight"),
            ));
        }
    }
    tensors.push(norm_weight(seed, "model.norm.weight"));
    tensors
}

const VOCAB: usize = tiny_tokenizer::VOCAB_SIZE;

fn inverse_root(n: usize) -> f32 {
    1.0 / f32::from(u16::try_from(n).expect("tiny")).sqrt()
}

/// A matrix with values of standard deviation `deviation`, a function of seed and name.
fn matrix(seed: u64, name: &str, rows: usize, columns: usize, deviation: f32) -> NamedTensor {
    let mut state = name
        .bytes()
        .fold(splitmix64(seed), |h, b| splitmix64(h ^ u64::from(b)));
    let values = (0..rows * columns)
        .map(|_| {
            state = splitmix64(state);
            uniform(state) * 3f32.sqrt() * deviation
        })
        .collect();
    (name.to_owned(), vec![rows, columns], values)
}

/// Norm weights near one, no two alike, so that a test notices when they are swapped.
fn norm_weight(seed: u64, name: &str) -> NamedTensor {
    let (name, _, values) = matrix(seed, name, 1, D_MODEL, 0.05);
    (
        name,
        vec![D_MODEL],
        values.into_iter().map(|value| 1.0 + value).collect(),
    )
}

/// A number in [-1, 1) from the upper bits of `bits`.
fn uniform(bits: u64) -> f32 {
    let upper = u16::try_from(bits >> 48).expect("sixteen bits");
    f32::from(upper) / 32_768.0 - 1.0
}

fn splitmix64(state: u64) -> u64 {
    let x = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

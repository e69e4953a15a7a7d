//! Base models on disk: what opens, what is refused and how, and what an export is worth.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use lm::gguf::GgufSource;
use lm::safetensors_file::SafetensorsSource;
use lm::testing::{tiny_gguf, write_tiny_base, write_tiny_gguf};
use lm::{BaseFiles, WeightSource};
use serde_json::Value;

const DOCUMENTS: [&str; 4] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
];

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn refusal(path: &Path) -> String {
    BaseFiles::open(path).unwrap_err().to_string()
}

/// The real model, where it has been fetched. With `CI` set it has to be there.
pub(crate) fn smollm2() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    let path = cache.join("attune/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.is_file() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is missing",
        path.display()
    );
    eprintln!("skipped: {} is missing", path.display());
    None
}

#[test]
fn a_hugging_face_folder_opens() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_base(folder.path(), 7);
    let base = BaseFiles::open(folder.path()).unwrap();
    assert_eq!((base.config().n_layers, base.config().hidden_size), (2, 32));
    assert_eq!(base.eos_token_ids(), [2]);
    assert_eq!(
        base.weight_files(),
        [folder.path().join("model.safetensors")]
    );
    base.load(&lm::Device::cpu(), lm::Precision::F32).unwrap();
}

#[test]
fn a_gguf_file_holds_the_same_model_as_the_folder_it_was_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let (hugging_face, gguf) = (folder.path().join("hf"), folder.path().join("tiny.gguf"));
    write_tiny_base(&hugging_face, 7);
    write_tiny_gguf(&gguf, 7);
    let (from_folder, from_gguf) = (
        BaseFiles::open(&hugging_face).unwrap(),
        BaseFiles::open(&gguf).unwrap(),
    );
    assert_eq!(from_folder.config(), from_gguf.config());
    assert_eq!(
        json(from_folder.tokenizer_json()),
        json(from_gguf.tokenizer_json())
    );
    assert_eq!(
        json(from_folder.tokenizer_config_json())["chat_template"],
        json(from_gguf.tokenizer_config_json())["chat_template"]
    );
    let mut expected = SafetensorsSource::open(from_folder.weight_files()).unwrap();
    let mut found = GgufSource::open(&gguf).unwrap();
    assert_eq!(expected.tensors(), found.tensors());
    for (name, shape) in expected.tensors() {
        let values = expected.tensor(&name, &shape).unwrap();
        assert_eq!(found.tensor(&name, &shape).unwrap(), values, "{name}");
    }
}

#[test]
fn documents_beside_a_gguf_file_win_over_its_metadata() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_gguf(&folder.path().join("tiny.gguf"), 7);
    fs::write(
        folder.path().join("generation_config.json"),
        r#"{"eos_token_id": [2, 0]}"#,
    )
    .unwrap();
    fs::write(folder.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
    let base = BaseFiles::open(folder.path()).unwrap();
    assert_eq!(base.eos_token_ids(), [2, 0]);
    assert_eq!(base.chat_template(), Some("{{ messages }}"));
}

#[test]
fn a_gguf_file_and_the_folder_with_its_documents_have_one_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny_gguf(&path, 7);
    let alone = BaseFiles::open(&path).unwrap();
    for (name, bytes) in alone.documents() {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let fingerprint = alone.fingerprint().unwrap();
    assert_eq!(
        BaseFiles::open(folder.path())
            .unwrap()
            .fingerprint()
            .unwrap(),
        fingerprint
    );
    assert_eq!(fingerprint.len(), 64);
    write_tiny_gguf(&path, 8);
    assert_ne!(
        BaseFiles::open(&path).unwrap().fingerprint().unwrap(),
        fingerprint
    );
}

#[test]
fn an_export_is_the_same_model_in_hugging_face_layout() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("tiny.gguf"), folder.path().join("out"));
    write_tiny_gguf(&path, 7);
    let base = BaseFiles::open(&path).unwrap();
    base.export(&out, None, lm::Dtype::F32).unwrap();
    let exported = BaseFiles::open(&out).unwrap();
    assert_eq!(exported.config(), base.config());
    assert_eq!(exported.tokenizer_json(), base.tokenizer_json());
    assert_eq!(json(exported.config_json())["torch_dtype"], "float32");
    let mut before = GgufSource::open(&path).unwrap();
    let mut after = SafetensorsSource::open(exported.weight_files()).unwrap();
    assert_eq!(before.tensors(), after.tensors());
    for (name, shape) in before.tensors() {
        let values = before.tensor(&name, &shape).unwrap();
        assert_eq!(after.tensor(&name, &shape).unwrap(), values, "{name}");
    }
}

#[test]
fn what_a_folder_lacks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refusal(folder.path()).contains("neither a `.safetensors` nor a `.gguf`"));
    for name in &DOCUMENTS[..3] {
        write_tiny_base(folder.path(), 7);
        fs::remove_file(folder.path().join(name)).unwrap();
        let message = refusal(folder.path());
        assert!(
            message.contains(name) && message.contains("is missing"),
            "{message}"
        );
    }
    write_tiny_base(folder.path(), 7);
    fs::remove_file(folder.path().join("generation_config.json")).unwrap();
    // The ids are in config.json as well.
    assert_eq!(BaseFiles::open(folder.path()).unwrap().eos_token_ids(), [2]);
}

#[test]
fn ambiguous_and_absent_paths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_gguf(&folder.path().join("a.gguf"), 7);
    write_tiny_gguf(&folder.path().join("b.gguf"), 7);
    assert!(refusal(folder.path()).contains("more than one `.gguf`"));
    fs::remove_file(folder.path().join("b.gguf")).unwrap();
    write_tiny_base(folder.path(), 7);
    assert!(refusal(folder.path()).contains("keep one kind"));
    assert!(refusal(&folder.path().join("nothing")).contains("nothing"));
    let text = folder.path().join("model.txt");
    fs::write(&text, "").unwrap();
    assert!(refusal(&text).contains("neither a folder nor a `.gguf` file"));
}

#[test]
fn an_architecture_or_tokenizer_that_is_not_supported_is_refused_by_name() {
    use lm::testing::MetadataValue;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let cases = [
        ("general.architecture", "gemma3", "`gemma3`"),
        ("tokenizer.ggml.model", "llama", "`llama`"),
        ("tokenizer.ggml.pre", "tekken", "`gpt2, tekken`"),
        ("llama.rope.scaling.type", "yarn", "`yarn`"),
    ];
    for (key, value, expected) in cases {
        let mut writer = tiny_gguf(7);
        writer.set(key, MetadataValue::string(value));
        fs::write(&path, writer.bytes()).unwrap();
        let message = refusal(&path);
        assert!(
            message.contains(expected) && message.contains("not supported"),
            "{message}"
        );
    }
}

#[test]
fn the_real_model_is_described_as_it_is() {
    let Some(path) = smollm2() else { return };
    let base = BaseFiles::open(&path).unwrap();
    let config = json(base.config_json());
    let expected = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 49152,
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100_000.0,
        "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
        "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        "torch_dtype": "float32",
    });
    assert_eq!(config, expected);
    let tokenizer_config = json(base.tokenizer_config_json());
    assert_eq!(tokenizer_config["eos_token"], "<|im_end|>");
    assert_eq!(tokenizer_config["unk_token"], "<|endoftext|>");
    assert!(
        tokenizer_config["chat_template"]
            .as_str()
            .unwrap()
            .contains("add_generation_prompt")
    );
    assert_eq!(base.eos_token_ids(), [2]);
}

#[test]
fn the_real_models_tokenizer_gives_the_reference_ids() {
    let Some(path) = smollm2() else { return };
    let base = BaseFiles::open(&path).unwrap();
    let model = text::TextModel::from_parts(
        base.tokenizer_json(),
        base.tokenizer_config_json(),
        base.chat_template(),
    )
    .unwrap();
    let cases = include_str!("../fixtures/tokenizer_cases.json");
    let cases: HashMap<String, Vec<u32>> = serde_json::from_str(cases).unwrap();
    assert_eq!(cases.len(), 10);
    for (text, ids) in cases {
        assert_eq!(model.tokenizer().encode(&text).unwrap(), ids, "{text:?}");
    }
}

//! GGUF and safetensors headers that lie: each lie is named, and no mutation of a sound file
//! panics or makes us allocate what the file cannot justify.

use std::fs;

use lm::gguf::GgufSource;
use lm::safetensors_file::SafetensorsSource;
use lm::testing::{GgufWriter, MetadataValue, safetensors_bytes, tiny_gguf};
use lm::{LoadError, WeightSource};
use proptest::prelude::*;

const F32: u32 = 0;
const Q2_K: u32 = 10;

fn open(bytes: &[u8]) -> Result<GgufSource, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    GgufSource::open(&path)
}

fn refusal(writer: &GgufWriter) -> String {
    open(&writer.bytes()).unwrap_err().to_string()
}

/// A sound file with two small tensors.
fn small() -> GgufWriter {
    let mut writer = GgufWriter::new("llama");
    writer.architecture_u32("attention.head_count", 2);
    writer.set(
        "tokenizer.ggml.tokens",
        MetadataValue::Strings(vec!["a".into(), "b".into()]),
    );
    writer.set("tokenizer.ggml.token_type", MetadataValue::I32s(vec![1, 3]));
    writer.tensor("token_embd.weight", &[4, 2], F32, None, vec![0; 32]);
    writer.tensor("blk.0.attn_q.weight", &[2, 8], F32, None, vec![0; 64]);
    writer
}

fn with_tensor(name: &str, dimensions: &[u64], code: u32, offset: Option<u64>) -> GgufWriter {
    let mut writer = small();
    writer.tensor(name, dimensions, code, offset, vec![0; 16]);
    writer
}

#[test]
fn a_sound_file_opens() {
    let source = open(&small().bytes()).unwrap();
    assert!(source.contains("model.embed_tokens.weight"));
    assert_eq!(source.tensors()[0].1, [2, 4]);
}

#[test]
fn lies_about_tensors_are_refused_by_name() {
    let norm = "output_norm.weight";
    let cases = [
        (with_tensor(norm, &[1 << 20], F32, None), "outside the file"),
        (
            with_tensor(norm, &[4], F32, Some(u64::MAX - 31)),
            "outside the file",
        ),
        (with_tensor(norm, &[4], F32, Some(8)), "not aligned"),
        (with_tensor(norm, &[4], F32, Some(0)), "overlaps"),
        (
            with_tensor(norm, &[u64::MAX, u64::MAX], F32, None),
            "cannot have",
        ),
        (
            with_tensor(norm, &[1 << 40, 1 << 40], F32, None),
            "cannot have",
        ),
        (with_tensor(norm, &[0], F32, None), "a dimension of 0"),
        (
            with_tensor(norm, &[1, 1, 1, 1, 1], F32, None),
            "5 dimensions",
        ),
        (with_tensor(norm, &[4], 8, None), "Q8_0 cannot have"),
        (with_tensor(norm, &[4], Q2_K, None), "stored as Q2_K"),
        (with_tensor(norm, &[4], 999, None), "stored as type 999"),
        (
            with_tensor("token_embd.weight", &[4], F32, None),
            "occurs twice",
        ),
        (
            with_tensor("../../etc/x", &[4], F32, None),
            "looks like a path",
        ),
        (with_tensor("a\nb", &[4], F32, None), "control character"),
        (
            with_tensor("blk.0.ssm_a", &[4], F32, None),
            "not part of the model",
        ),
        (
            with_tensor("blk.1.attn_q.weight", &[2, 2], F32, None),
            "2 rows for 2 heads",
        ),
    ];
    for (writer, expected) in cases {
        let message = refusal(&writer);
        assert!(message.contains(expected), "expected {expected}: {message}");
    }
}

#[test]
fn lies_in_the_metadata_are_refused() {
    let with = |key: &str, value: MetadataValue| {
        let mut writer = small();
        writer.push(key, value);
        refusal(&writer)
    };
    let le = u64::to_le_bytes;
    // An array of strings, then of arrays, that claims more elements than the file has bytes.
    let endless = |code: u32| [code.to_le_bytes().to_vec(), le(1 << 60).to_vec()].concat();
    let mut nested = Vec::new();
    for _ in 0..1000 {
        nested.extend(9u32.to_le_bytes());
        nested.extend(le(1));
    }
    assert!(with("x", MetadataValue::Raw(8, le(u64::MAX).to_vec())).contains("claims more"));
    assert!(with("x", MetadataValue::Raw(9, endless(8))).contains("claims more"));
    assert!(with("x", MetadataValue::Raw(9, endless(9))).contains("claims more"));
    assert!(with("x", MetadataValue::Raw(9, endless(4))).contains("claims more"));
    assert!(with("x", MetadataValue::Raw(9, nested)).contains("nested too deeply"));
    assert!(with("x", MetadataValue::Raw(99, Vec::new())).contains("99 is no metadata type"));
    assert!(with("x\0", MetadataValue::U32(1)).contains("no metadata key"));
    assert!(with("general.architecture", MetadataValue::string("x")).contains("occurs twice"));
    assert!(with("general.alignment", MetadataValue::U32(3)).contains("3 is no alignment"));
    assert!(with("general.alignment", MetadataValue::string("3")).contains("not a whole number"));
    assert!(with("llama.attention.head_count_kv", MetadataValue::U32(0)).contains("2/0 heads"));
}

#[test]
fn counts_beyond_the_limits_are_refused_before_anything_is_read() {
    let mut bytes = small().bytes();
    bytes[8..16].copy_from_slice(&100_001u64.to_le_bytes());
    assert!(matches!(
        open(&bytes),
        Err(LoadError::TooManyTensors { limit: 100_000, .. })
    ));
    let mut bytes = small().bytes();
    bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(
        open(&bytes)
            .unwrap_err()
            .to_string()
            .contains("metadata keys")
    );
}

#[test]
fn a_header_beyond_the_limit_is_refused() {
    let mut writer = small();
    let len = 80u64 << 20;
    // The claim is true, the file being long enough; it is too large all the same.
    let head = [0u32.to_le_bytes().to_vec(), len.to_le_bytes().to_vec()].concat();
    writer.push("x", MetadataValue::Raw(9, head));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, writer.bytes()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(2 * len).unwrap();
    let error = GgufSource::open(&path).unwrap_err();
    assert!(matches!(error, LoadError::HeaderTooLarge { .. }), "{error}");
}

#[test]
fn other_files_and_versions_are_refused() {
    assert!(
        open(b"")
            .unwrap_err()
            .to_string()
            .contains("not a GGUF file")
    );
    assert!(
        open(b"PK\x03\x04....")
            .unwrap_err()
            .to_string()
            .contains("not a GGUF file")
    );
    let mut bytes = small().bytes();
    bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
    assert!(open(&bytes).unwrap_err().to_string().contains("version 1"));
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(open(&bytes).unwrap_err().to_string().contains("big-endian"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = small().bytes();
    for end in 0..bytes.len() {
        assert!(open(&bytes[..end]).is_err(), "{end}");
    }
}

/// Bytes to overwrite: place (as a fraction of the file) and value.
fn mutations() -> impl Strategy<Value = Vec<(f64, u8)>> {
    proptest::collection::vec((0.0..1.0, any::<u8>()), 1..12)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a file"
)]
#[expect(clippy::cast_precision_loss, reason = "the file is small")]
fn mutate(bytes: &mut [u8], changes: &[(f64, u8)]) {
    for (place, value) in changes {
        let at = (bytes.len() as f64 * place) as usize;
        bytes[at] = *value;
    }
}

proptest! {
    #[test]
    fn no_mutation_of_a_gguf_file_panics(changes in mutations()) {
        let mut bytes = small().bytes();
        mutate(&mut bytes, &changes);
        if let Ok(mut source) = open(&bytes) {
            let n_values: usize =
                source.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            // No format takes less than half a byte a value.
            prop_assert!(n_values <= 2 * bytes.len());
            drop(source.config_json());
            drop(source.tokenizer_json());
            drop(source.tokenizer_config_json());
            drop(source.generation_config_json());
        }
    }

    #[test]
    fn no_mutation_of_a_whole_models_header_panics(changes in mutations()) {
        let mut bytes = tiny_gguf(1).bytes();
        let header = bytes.len().min(9_000);
        mutate(&mut bytes[..header], &changes);
        if let Ok(mut source) = open(&bytes) {
            drop(source.config_json());
            drop(source.tokenizer_json());
        }
    }

    #[test]
    fn no_mutation_of_a_safetensors_file_panics(changes in mutations()) {
        let tensors = [("a", vec![2, 2], vec![0.0; 4]), ("b", vec![3], vec![0.0; 3])];
        let mut bytes = safetensors_bytes(&tensors);
        mutate(&mut bytes, &changes);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, &bytes).unwrap();
        if let Ok(mut source) = SafetensorsSource::open(&[path]) {
            for (name, shape) in source.tensors() {
                if let Ok(values) = source.tensor(&name, &shape) {
                    prop_assert!(values.len() <= bytes.len() / 2);
                }
            }
        }
    }
}

//! Exports, loaded back: a base with an adapter in it is, as a folder and as a GGUF file, the model that was trained.

use std::fs;
use std::path::{Path, PathBuf};

use lm::gguf::{GgufDtype, GgufSource};
use lm::safetensors_file::SafetensorsSource;
use lm::testing::{
    MetadataValue, safetensors_bytes, tiny_gguf, tiny_tokenizer_config, tiny_tokenizer_json,
    write_tiny_base, write_tiny_gguf,
};
use lm::{
    Adapter, BaseFiles, CausalLm, Device, Dtype, Learned, LoadError, LoraConfig, Precision, Ragged,
    WeightSource,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::adapter::random_adapter;
use crate::forward::values;
use crate::tiny::{self, RandomWeights, families, largest_difference};

/// How far logits of an export may be from those of base and adapter, as a part of the largest.
const F32_BOUND: f32 = 5e-6;
const F16_BOUND: f32 = 4e-3;
const BF16_BOUND: f32 = 3e-2;
const Q8_0_BOUND: f32 = 5e-2;

/// A base model on disk, and what is written beside it.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn tiny() -> (Self, BaseFiles) {
        let files = Self::new();
        write_tiny_base(&files.path("base"), 7);
        let base = BaseFiles::open(&files.path("base")).unwrap();
        (files, base)
    }

    fn tiny_gguf() -> (Self, BaseFiles) {
        let files = Self::new();
        write_tiny_gguf(&files.path("base.gguf"), 7);
        let base = BaseFiles::open(&files.path("base.gguf")).unwrap();
        (files, base)
    }

    /// A model of the family with these changes, its weights random.
    fn family(changes: &Value) -> (Self, BaseFiles) {
        let files = Self::new();
        let mut changes = changes.clone();
        changes["vocab_size"] = 300.into();
        let config = tiny::config(changes);
        let mut recorder = Recorder::default();
        CausalLm::from_source(&config, &mut recorder, &Device::cpu(), Precision::F32).unwrap();
        let tensors = recorder.tensors.iter();
        let tensors: Vec<_> = tensors
            .map(|(name, shape, values)| (name.as_str(), shape.clone(), values.clone()))
            .collect();
        let folder = files.path("base");
        fs::create_dir(&folder).unwrap();
        fs::write(
            folder.join("model.safetensors"),
            safetensors_bytes(&tensors),
        )
        .unwrap();
        fs::write(folder.join("config.json"), config.to_json().to_string()).unwrap();
        fs::write(folder.join("tokenizer.json"), tiny_tokenizer_json()).unwrap();
        let tokenizer_config = tiny_tokenizer_config().to_string();
        fs::write(folder.join("tokenizer_config.json"), tokenizer_config).unwrap();
        let base = BaseFiles::open(&folder).unwrap();
        (files, base)
    }
}

/// Random weights that remember what was asked for.
#[derive(Default)]
struct Recorder {
    weights: RandomWeights,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl WeightSource for Recorder {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let values = self.weights.tensor(name, shape)?;
        let tensor = (name.to_owned(), shape.to_vec(), values.clone());
        self.tensors.push(tensor);
        Ok(values)
    }

    fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }
}

fn load(base: &BaseFiles) -> CausalLm {
    base.load(&Device::cpu(), Precision::F32).unwrap()
}

/// An adapter of random numbers, as something learned.
fn trained(model: &CausalLm) -> Learned {
    Learned::Adapter(random_adapter(model))
}

fn logits(model: &CausalLm, learned: Option<&Learned>) -> Vec<f32> {
    let input = Ragged::from_rows([&[1, 40, 41, 7, 250, 2][..], &[90, 6, 299]]);
    let (model, adapter) = learned.map_or((model.clone(), None), |learned| learned.on(model));
    values(model.logits(model.hidden(&input, adapter, None)))
}

/// How far the logits of the model at `path` are from those of `base` with what was learned, as a part of the
/// largest.
fn off(path: &Path, base: &BaseFiles, learned: Option<&Learned>) -> f32 {
    let exported = load(&BaseFiles::open(path).unwrap());
    let expected = logits(&load(base), learned);
    let largest = expected.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    largest_difference(&logits(&exported, None), &expected) / largest
}

/// The families that GGUF can describe, Llama 3's positions as our own reader knows them.
fn gguf_families() -> [Value; 5] {
    let [llama, mut biased, mistral, _, qwen3] = families();
    biased["rope_scaling"]["factor"] = 8.0.into();
    biased["rope_scaling"]["original_max_position_embeddings"] = 8192.into();
    [
        llama,
        biased,
        mistral,
        json!({"model_type": "qwen2"}),
        qwen3,
    ]
}

#[test]
fn a_merged_folder_is_the_trained_model_in_every_family() {
    for changes in families() {
        let (files, base) = Files::family(&changes);
        let adapter = trained(&load(&base));
        base.export(&files.path("out"), Some(&adapter), Dtype::F32)
            .unwrap();
        let off_by = off(&files.path("out"), &base, Some(&adapter));
        assert!(off_by < F32_BOUND, "{changes}: {off_by}");
        assert!(off(&files.path("out"), &base, None) > 0.1, "{changes}");
    }
}

#[test]
fn a_merged_gguf_file_is_the_trained_model_in_every_family() {
    for changes in gguf_families() {
        let (files, base) = Files::family(&changes);
        let (adapter, out) = (trained(&load(&base)), files.path("out.gguf"));
        base.export_gguf(&out, Some(&adapter), GgufDtype::F32)
            .unwrap();
        let off_by = off(&out, &base, Some(&adapter));
        assert!(off_by < F32_BOUND, "{changes}: {off_by}");
        let opened = BaseFiles::open(&out).unwrap();
        let text =
            |base: &BaseFiles| serde_json::from_slice::<Value>(base.tokenizer_json()).unwrap();
        assert_eq!(text(&opened), text(&base), "{changes}");
        let named = |base: &BaseFiles| base.config().architecture;
        assert_eq!(named(&opened), named(&base), "{changes}");
    }
}

#[test]
fn learned_lengths_of_rows_are_merged_too() {
    let (files, base) = Files::tiny();
    let model = load(&base);
    let random = random_adapter(&model);
    let config = LoraConfig {
        use_dora: true,
        ..random.config().clone()
    };
    let fresh = Adapter::init(&config, &model, 1);
    // As random as the other one, and every row a fifth longer than the base's.
    let dora = fresh.map(
        |name, tensor| match random.named_tensors().find(|(n, _)| n == name) {
            Some((_, random)) => random.clone(),
            None => tensor * 1.2,
        },
    );
    let dora = Learned::Adapter(dora);
    base.export(&files.path("out"), Some(&dora), Dtype::F32)
        .unwrap();
    let off_by = off(&files.path("out"), &base, Some(&dora));
    assert!(off_by < F32_BOUND, "{off_by}");
    assert!(off(&files.path("out"), &base, Some(&Learned::Adapter(random))) > 0.1);
    let Learned::Adapter(dora) = dora else {
        unreachable!("made above")
    };
    let refused = dora.export_gguf(&files.path("a.gguf"), base.config(), Dtype::F32);
    assert!(matches!(refused, Err(LoadError::NotGguf(_))), "{refused:?}");
}

#[test]
fn a_model_whose_every_weight_learned_is_written_whole() {
    let (files, base) = Files::tiny();
    let moved = load(&base).trainable(true).map(|_, tensor| tensor * 1.1);
    let learned = Learned::Full(moved);
    base.export(&files.path("out"), Some(&learned), Dtype::F32)
        .unwrap();
    let off_by = off(&files.path("out"), &base, Some(&learned));
    assert!(off_by < F32_BOUND, "{off_by}");
    assert!(off(&files.path("out"), &base, None) > 0.1);
    base.export_gguf(&files.path("out.gguf"), Some(&learned), GgufDtype::F32)
        .unwrap();
    let off_by = off(&files.path("out.gguf"), &base, Some(&learned));
    assert!(off_by < F32_BOUND, "{off_by}");
}

#[test]
fn narrower_types_stay_within_their_bounds() {
    let (files, base) = Files::tiny();
    let adapter = trained(&load(&base));
    for (dtype, bound) in [(Dtype::F16, F16_BOUND), (Dtype::Bf16, BF16_BOUND)] {
        let out = files.path(dtype.torch_name());
        base.export(&out, Some(&adapter), dtype).unwrap();
        assert_eq!(BaseFiles::open(&out).unwrap().dtype().unwrap(), dtype);
        let off_by = off(&out, &base, Some(&adapter));
        assert!(off_by < bound, "{dtype:?}: {off_by}");
        let config: Value =
            serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["torch_dtype"], dtype.torch_name());
    }
    for (dtype, bound) in [
        (GgufDtype::F16, F16_BOUND),
        (GgufDtype::Bf16, BF16_BOUND),
        (GgufDtype::Q8_0, Q8_0_BOUND),
    ] {
        let out = files.path(&format!("{dtype:?}.gguf"));
        base.export_gguf(&out, Some(&adapter), dtype).unwrap();
        let off_by = off(&out, &base, Some(&adapter));
        assert!(off_by < bound && off_by > 0.0, "{dtype:?}: {off_by}");
    }
    let size = |name: &str| fs::metadata(files.path(name)).unwrap().len();
    assert!(size("Q8_0.gguf") < size("F16.gguf"));
}

#[test]
fn a_gguf_base_is_merged_like_any_other() {
    let (files, base) = Files::tiny_gguf();
    let adapter = trained(&load(&base));
    base.export(&files.path("out"), Some(&adapter), Dtype::F32)
        .unwrap();
    let out = files.path("out.gguf");
    base.export_gguf(&out, Some(&adapter), GgufDtype::F32)
        .unwrap();
    assert!(off(&files.path("out"), &base, Some(&adapter)) < F32_BOUND);
    assert!(off(&out, &base, Some(&adapter)) < F32_BOUND);
}

#[test]
fn a_base_without_an_adapter_is_written_value_for_value() {
    let (files, base) = Files::tiny();
    let out = files.path("out.gguf");
    base.export_gguf(&out, None, GgufDtype::F32).unwrap();
    let mut before = SafetensorsSource::open(base.weight_files()).unwrap();
    let mut after = GgufSource::open(&out).unwrap();
    assert_eq!(before.tensors(), after.tensors());
    for (name, shape) in before.tensors() {
        let values = before.tensor(&name, &shape).unwrap();
        assert_eq!(after.tensor(&name, &shape).unwrap(), values, "{name}");
    }
    let opened = BaseFiles::open(&out).unwrap();
    assert_eq!(
        opened.config().special_token_ids,
        base.config().special_token_ids
    );
    assert_eq!(opened.eos_token_ids(), base.eos_token_ids());
    let template = |base: &BaseFiles| {
        let document: Value = serde_json::from_slice(base.tokenizer_config_json()).unwrap();
        document["chat_template"].clone()
    };
    assert_eq!(template(&opened), template(&base));
}

#[test]
fn the_metadata_of_a_gguf_base_is_carried_over() {
    let files = Files::new();
    let mut writer = tiny_gguf(7);
    writer.set("general.license", MetadataValue::string("apache-2.0"));
    writer.set("tokenizer.ggml.pre", MetadataValue::string("llama3"));
    writer.set("general.file_type", MetadataValue::U32(3));
    let (path, out) = (files.path("base.gguf"), files.path("out.gguf"));
    fs::write(&path, writer.bytes()).unwrap();
    let base = BaseFiles::open(&path).unwrap();
    base.export_gguf(&out, None, GgufDtype::F32).unwrap();
    let bytes = fs::read(&out).unwrap();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    // The rule's name too, which our own would be `llama-bpe`.
    assert!(has(b"apache-2.0") && has(b"\x06\0\0\0\0\0\0\0llama3"));
    assert!(has(b"general.file_type\x04\0\0\0\0\0\0\0"));
    assert!(!has(b"general.name"));
}

#[test]
fn documents_beside_a_gguf_base_win_over_its_metadata() {
    let (files, _) = Files::tiny_gguf();
    fs::write(files.path("chat_template.jinja"), "{{ other }}").unwrap();
    let base = BaseFiles::open(files.0.path()).unwrap();
    let elsewhere = Files::new();
    let out = elsewhere.path("out.gguf");
    base.export_gguf(&out, None, GgufDtype::F32).unwrap();
    let opened = BaseFiles::open(&out).unwrap();
    let document: Value = serde_json::from_slice(opened.tokenizer_config_json()).unwrap();
    assert_eq!(document["chat_template"], "{{ other }}");
}

#[test]
fn a_second_copy_of_a_tied_head_is_left_out() {
    let (files, _) = Files::tiny();
    let path = files.path("base/model.safetensors");
    let mut tensors = lm::testing::tiny_tensors(7);
    tensors.push(("lm_head.weight".to_owned(), vec![300, 32], vec![0.0; 9600]));
    let borrowed: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| (name.as_str(), shape.clone(), values.clone()))
        .collect();
    fs::write(path, safetensors_bytes(&borrowed)).unwrap();
    let base = BaseFiles::open(&files.path("base")).unwrap();
    let out = files.path("out.gguf");
    base.export_gguf(&out, None, GgufDtype::F32).unwrap();
    assert!(!GgufSource::open(&out).unwrap().contains("lm_head.weight"));
    assert!(off(&out, &base, None) < F32_BOUND);
}

#[test]
fn what_gguf_cannot_describe_is_refused_and_leaves_nothing() {
    let llama3 = families()[1]["rope_scaling"].clone();
    for (changes, expected) in [
        (families()[3].clone(), "look back differently far"),
        (
            json!({"model_type": "qwen3", "rope_scaling": llama3}),
            "only llama models",
        ),
    ] {
        let (files, base) = Files::family(&changes);
        let out = files.path("out.gguf");
        let error = base.export_gguf(&out, None, GgufDtype::F16).unwrap_err();
        assert!(matches!(error, LoadError::NotGguf(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(fs::read_dir(files.0.path()).unwrap().count(), 1);
    }
}

#[test]
fn values_that_do_not_fit_fail_the_export_and_leave_nothing() {
    let (files, base) = Files::tiny();
    let adapter = trained(&load(&base)).map(|_, tensor| tensor.mul_scalar(1e4));
    let out = files.path("out");
    let error = base.export(&out, Some(&adapter), Dtype::F16).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
    let error = base
        .export_gguf(&out, Some(&adapter), GgufDtype::F16)
        .unwrap_err();
    assert!(error.to_string().contains("write it as bf16"), "{error}");
    assert_eq!(fs::read_dir(files.0.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_exists_is_refused_and_kept() {
    let (files, base) = Files::tiny();
    let out = files.path("out.gguf");
    fs::write(&out, "mine").unwrap();
    let adapter = random_adapter(&load(&base));
    for error in [
        base.export_gguf(&out, None, GgufDtype::F16).unwrap_err(),
        adapter
            .export_gguf(&out, base.config(), Dtype::F32)
            .unwrap_err(),
    ] {
        assert!(error.to_string().contains("exists already"), "{error}");
    }
    assert_eq!(fs::read(&out).unwrap(), b"mine");
}

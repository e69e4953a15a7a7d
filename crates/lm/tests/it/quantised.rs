//! Models whose matrices stay in blocks: the same numbers as when they are decoded at load, and an adapter learns on them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Tensor;
use half::f16;
use lm::testing::{tiny_gguf, tiny_tensors, write_tiny_base};
use lm::{Adapter, BaseFiles, CausalLm, Device, LoadError, Precision, Ragged};
use serde_json::json;

use crate::adapter::random_adapter;
use crate::base::smollm2;
use crate::forward::values;
use crate::tiny::{self, RandomWeights, largest_difference, lora};

const Q4_0: u32 = 2;
const Q4_1: u32 = 3;
const Q8_0: u32 = 8;

/// Blocks of a type, none of them well chosen.
fn encode(code: u32, values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in values.chunks(32) {
        let lowest = block.iter().copied().fold(f32::INFINITY, f32::min);
        let largest = block.iter().fold(0.0, |l: f32, value| l.max(value.abs()));
        let (scale, offset) = match code {
            Q4_0 => (largest / 7.0, 0.0),
            Q4_1 => (2.0 * largest / 15.0, lowest),
            _ => (largest / 127.0, 0.0),
        };
        bytes.extend(f16::from_f32(scale).to_le_bytes());
        if code == Q4_1 {
            bytes.extend(f16::from_f32(offset).to_le_bytes());
        }
        let middle = if code == Q4_0 { 8.0 } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
        let whole = |value: &f32| ((value - offset) / scale + middle).round() as i8;
        let numbers: Vec<u8> = block.iter().map(|v| whole(v).cast_unsigned()).collect();
        if code == Q8_0 {
            bytes.extend(numbers);
        } else {
            let (low, high) = numbers.split_at(16);
            bytes.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
        }
    }
    bytes
}

/// The tiny model in blocks of three types, those that share an input not all of one.
fn write_tiny_blocks(path: &std::path::Path) {
    let mut writer = tiny_gguf(7);
    for (name, shape, _) in tiny_tensors(7) {
        if shape.len() == 2 {
            let code = match () {
                () if name.contains("q_proj") || name.contains("gate") => Q4_0,
                () if name.contains("k_proj") || name.contains("down") => Q4_1,
                () => Q8_0,
            };
            writer.encode(&name, code, |values| encode(code, values));
        }
    }
    fs::write(path, writer.bytes()).unwrap();
}

/// The logits of every token, fed at once, and of the last one when they are fed one by one.
fn logits(model: &CausalLm, ids: &[u32], adapter: Option<&Adapter>) -> (Vec<f32>, Vec<f32>) {
    let whole = model.logits(model.hidden(&Ragged::single(ids), adapter, None));
    let mut session = model.session();
    let steps = ids.iter().map(|id| session.feed(&[*id], adapter).unwrap());
    (values(whole), steps.last().unwrap())
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |l: f32, value| l.max(value.abs()))
}

#[test]
fn a_gguf_model_kept_in_blocks_speaks_as_its_values_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_tiny_blocks(&path);
    let base = BaseFiles::open(&path).unwrap();
    let load = |precision| base.load(&Device::cpu(), precision).unwrap();
    let (dense, blocks) = (load(Precision::F32), load(Precision::Gguf));
    assert!(blocks.size_bytes() * 3 < dense.size_bytes());
    assert!(blocks.kernels().contains("+gguf-"), "{}", blocks.kernels());
    let ids = [3, 1, 4, 1, 5, 9, 2, 6, 53, 58];
    for adapter in [None, Some(random_adapter(&dense))] {
        let (expected, expected_last) = logits(&dense, &ids, adapter.as_ref());
        let (found, found_last) = logits(&blocks, &ids, adapter.as_ref());
        // Many rows go through bf16 where the CPU has it, a single one never.
        let bound = 2e-2 * largest(&expected);
        assert!(largest_difference(&found, &expected) < bound);
        assert!(largest_difference(&found_last, &expected_last) < 1e-4);
    }
}

#[test]
fn the_real_model_kept_in_blocks_speaks_as_its_values_do() {
    let Some(path) = smollm2() else { return };
    let base = BaseFiles::open(&path).unwrap();
    let load = |precision| base.load(&Device::cpu(), precision).unwrap();
    let ids = [1, 4093, 198, 1780, 314, 260, 3575];
    let (blocks, dense) = (load(Precision::Gguf), load(Precision::F32));
    let (expected, expected_last) = logits(&dense, &ids, None);
    let (found, found_last) = logits(&blocks, &ids, None);
    let bound = 3e-2 * largest(&expected);
    assert!(largest_difference(&found, &expected) < bound);
    assert!(largest_difference(&found_last, &expected_last) < 1e-3);
}

#[test]
fn blocks_are_kept_where_there_are_some() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_base(folder.path(), 7);
    let base = BaseFiles::open(folder.path()).unwrap();
    let error = base.load(&Device::cpu(), Precision::Gguf).unwrap_err();
    assert!(matches!(&error, LoadError::NotInBlocks(_)), "{error}");
    assert!(error.to_string().contains("quantise it to nf4"), "{error}");
}

#[test]
fn a_block_that_is_not_finite_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("tiny.gguf");
    let mut writer = tiny_gguf(7);
    let name = "model.layers.1.mlp.down_proj.weight";
    writer.encode(name, Q8_0, |values| {
        let mut bytes = encode(Q8_0, values);
        bytes[34..36].copy_from_slice(&f16::NAN.to_le_bytes());
        bytes
    });
    fs::write(&path, writer.bytes()).unwrap();
    let base = BaseFiles::open(&path).unwrap();
    for precision in [Precision::F32, Precision::Nf4, Precision::Gguf] {
        let error = base.load(&Device::cpu(), precision).unwrap_err();
        assert!(
            matches!(&error, LoadError::NonFinite(found) if found == name),
            "{error}"
        );
    }
}

/// 48 wide, so that no row is a whole number of blocks.
fn nf4() -> CausalLm {
    let config = tiny::config(json!({"hidden_size": 48, "intermediate_size": 80}));
    let mut weights = RandomWeights::default();
    CausalLm::from_source(&config, &mut weights, &Device::cpu(), Precision::Nf4).unwrap()
}

#[test]
fn an_adapter_learns_on_a_base_in_four_bits() {
    let model = nf4();
    assert!(model.kernels().contains("+nf4-"), "{}", model.kernels());
    let batch = Ragged::from_rows([&[1, 2, 3, 4, 5][..], &[6, 7, 8, 9]]);
    let targets: Arc<[u32]> = [2, 3, 4, 5, 1, 7, 8, 9, 1].into();
    let mut adapter = Adapter::init(&lora(), &model, 42);
    let training = model.autodiff();
    let mut losses = Vec::new();
    for _ in 0..60 {
        let tracked = adapter.clone().require_grad();
        let hidden = training.hidden(&batch, Some(&tracked), None);
        let loss = training.cross_entropy(hidden, &targets);
        let loss: Tensor<1> = loss.narrow(1, 0, 1).mean();
        losses.push(values(loss.clone())[0]);
        let gradients = loss.backward();
        let by_name: std::collections::HashMap<_, _> = tracked
            .named_tensors()
            .map(|(name, tensor)| (name, tensor.grad(&gradients).unwrap()))
            .collect();
        adapter = adapter.map(|name, tensor| tensor - by_name[name].clone().mul_scalar(0.1));
    }
    let (first, last) = (losses[0], losses[59]);
    assert!(last < 0.5 * first, "{first} became {last}");
}

#[test]
fn four_bits_are_close_to_the_whole_numbers() {
    let config = tiny::config(json!({"hidden_size": 64, "intermediate_size": 128}));
    let load = |precision| {
        let mut weights = RandomWeights::default();
        CausalLm::from_source(&config, &mut weights, &Device::cpu(), precision).unwrap()
    };
    let ids = [3, 1, 4, 1, 5, 9, 2, 6];
    let (expected, _) = logits(&load(Precision::F32), &ids, None);
    let (found, _) = logits(&load(Precision::Nf4), &ids, None);
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let cosine = dot(&found, &expected) / (dot(&found, &found) * dot(&expected, &expected)).sqrt();
    assert!(cosine > 0.97, "{cosine}");
}

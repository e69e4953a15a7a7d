//! DoRA: against the composed matrix, and its files.

use std::fs;

use lm::{Adapter, CausalLm, Device, Dropout, LoraConfig, WeightSource};
use serde_json::json;

use crate::adapter::{batch, hidden, saved};
use crate::forward::values;
use crate::tiny::{self, RandomWeights, families, largest_difference, random};

fn dora() -> LoraConfig {
    LoraConfig {
        use_dora: true,
        ..tiny::lora()
    }
}

/// One that is far from where it began.
fn moved_adapter(model: &CausalLm) -> Adapter {
    Adapter::init(&dora(), model, 1).map(|name, tensor| {
        let moved = random(name, tensor.shape().num_elements());
        let moved = burn::tensor::TensorData::new(moved, tensor.shape());
        tensor.clone() + burn::tensor::Tensor::from_data(moved, &tensor.device()) * 0.3
    })
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    for changes in families() {
        let model = tiny::model(changes);
        let adapter = Adapter::init(&dora(), &model, 42);
        let expected = hidden(&model, None);
        assert_eq!(hidden(&model, Some(&adapter)), expected);
        let dropout = Dropout { rate: 0.3, key: 1 };
        let thinned = values(model.hidden(&batch(), Some(&adapter), Some(&dropout)));
        assert_eq!(thinned, expected);
    }
}

/// The same model with `m · (W + scale · B·A) / ‖W + scale · B·A‖` in place of each adapted W.
fn composed(model: &CausalLm, adapter: &Adapter) -> CausalLm {
    let mut replaced = std::collections::HashMap::new();
    let tensors: Vec<_> = adapter.named_tensors().collect();
    for [(name, a), (_, b), (magnitude, m)] in tensors.as_chunks().0 {
        assert!(magnitude.ends_with(".lora_magnitude_vector"), "{magnitude}");
        let (delta, m) = ((*a).clone().matmul((*b).clone()), values((*m).clone()));
        let delta = delta.mul_scalar(adapter.config().scale()).transpose();
        let [n_out, n_in] = delta.dims();
        let name = name
            .trim_start_matches("base_model.model.")
            .replace(".lora_A", "");
        let mut weights = RandomWeights::default();
        let weight = weights.tensor(&name, &[n_out, n_in]).unwrap();
        let mut sum: Vec<f32> = weight
            .iter()
            .zip(values(delta))
            .map(|(w, d)| w + d)
            .collect();
        for (row, m) in sum.chunks_mut(n_in).zip(m) {
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            for value in row.iter_mut() {
                *value *= m / norm;
            }
        }
        replaced.insert(name, sum);
    }
    tiny::build(model.config(), RandomWeights { replaced })
}

#[test]
fn the_factored_form_equals_the_composed_matrix() {
    for changes in families() {
        let model = tiny::model(changes);
        let adapter = moved_adapter(&model);
        let expected = hidden(&composed(&model, &adapter), None);
        let found = hidden(&model, Some(&adapter));
        assert!(largest_difference(&found, &expected) < 2e-5);
        assert!(largest_difference(&found, &hidden(&model, None)) > 1e-2);
    }
}

#[test]
fn a_saved_adapter_loads_bit_equal_and_says_what_it_is() {
    let model = tiny::model(json!({}));
    let adapter = moved_adapter(&model);
    let dir = saved(&adapter);
    let loaded = Adapter::load(dir.path(), model.config(), &Device::cpu()).unwrap();
    assert_eq!(loaded.config(), adapter.config());
    let bits = |adapter: &Adapter| {
        let tensors = adapter.named_tensors();
        tensors
            .map(|(name, tensor)| (name, values(tensor.clone())))
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(&loaded), bits(&adapter));
    assert_eq!(
        hidden(&model, Some(&loaded)),
        hidden(&model, Some(&adapter))
    );

    let bytes = fs::read(dir.path().join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let magnitude = "base_model.model.model.layers.1.self_attn.k_proj.lora_magnitude_vector";
    assert_eq!(file.tensor(magnitude).unwrap().shape(), [16]);
}

//! The forward pass against the oracle, and the isolation of segments.

use std::collections::HashMap;

use burn::tensor::Tensor;
use lm::{CausalLm, LoadError, ModelConfig, Ragged, WeightSource};
use serde_json::json;

use crate::oracle;
use crate::tiny::{self, RandomWeights, families, largest_difference};

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

fn hidden(model: &CausalLm, batch: &Ragged) -> Vec<f32> {
    values(model.hidden(batch, None, None))
}

#[test]
fn every_family_equals_the_plain_computation() {
    let ids = [3, 1, 4, 1, 5, 9, 2, 6, 49];
    for changes in families() {
        let config = tiny::config(changes.clone());
        let model = tiny::build(&config, RandomWeights::default());
        let logits = values(model.logits(model.hidden(&Ragged::single(&ids), None, None)));
        let expected = oracle::logits(&config, &ids).concat();
        let difference = logits
            .iter()
            .zip(&expected)
            .map(|(found, expected)| (f64::from(*found) - expected).abs())
            .fold(0.0, f64::max);
        assert!(difference < 2e-5, "{changes}: {difference}");
    }
}

#[test]
fn segments_equal_each_alone() {
    let rows: [&[u32]; 6] = [
        &[1, 2, 3],
        &[4, 5, 6],
        &[7],
        &[8, 9, 10, 11, 12],
        &[],
        &[13, 14],
    ];
    for changes in families() {
        let model = tiny::model(changes);
        let together = hidden(&model, &Ragged::from_rows(rows));
        let alone: Vec<f32> = rows
            .iter()
            .filter(|row| !row.is_empty())
            .flat_map(|row| hidden(&model, &Ragged::single(row)))
            .collect();
        assert!(largest_difference(&together, &alone) < 1e-5);
    }
}

#[test]
fn a_segment_does_not_see_its_neighbours() {
    let model = tiny::model(json!({}));
    let first = hidden(
        &model,
        &Ragged::from_rows([&[1, 2, 3][..], &[4, 5, 6], &[7, 8]]),
    );
    let second = hidden(
        &model,
        &Ragged::from_rows([&[11, 12, 13][..], &[4, 5, 6], &[9, 9]]),
    );
    let middle = 3 * 24..6 * 24;
    assert_eq!(first[middle.clone()], second[middle]);
    assert_ne!(first[..3 * 24], second[..3 * 24]);
}

#[test]
fn grouped_heads_equal_repeated_heads() {
    let grouped = tiny::config(json!({}));
    let repeated = tiny::config(json!({"num_key_value_heads": 4}));
    let mut weights = RandomWeights::default();
    let mut replaced = HashMap::new();
    for layer in 0..2 {
        for module in ["k_proj", "v_proj"] {
            let name = format!("model.layers.{layer}.self_attn.{module}.weight");
            let values = weights.tensor(&name, &[16, 24]).unwrap();
            let twice = values
                .chunks(8 * 24)
                .flat_map(|head| head.repeat(2))
                .collect();
            replaced.insert(name, twice);
        }
    }
    let batch = Ragged::from_rows([&[1, 2, 3, 4][..], &[5, 6]]);
    let grouped = tiny::build(&grouped, weights);
    let repeated = tiny::build(&repeated, RandomWeights { replaced });
    assert!(largest_difference(&hidden(&grouped, &batch), &hidden(&repeated, &batch)) < 1e-5);
}

#[test]
fn a_window_hides_what_lies_behind_it() {
    let one_layer = |window| {
        tiny::model(json!({"model_type": "mistral", "num_hidden_layers": 1,
            "sliding_window": window}))
    };
    let last = |model: &CausalLm, first_id| {
        hidden(model, &Ragged::single(&[first_id, 2, 3, 4]))[3 * 24..].to_vec()
    };
    let (narrow, wide) = (one_layer(3), one_layer(4));
    assert_eq!(last(&narrow, 1), last(&narrow, 9));
    assert_ne!(last(&wide, 1), last(&wide, 9));
}

#[test]
fn a_model_asks_for_exactly_the_tensors_that_its_config_lists() {
    struct Recorder(Vec<(String, Vec<usize>)>);
    impl WeightSource for Recorder {
        fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
            self.0.push((name.to_owned(), shape.to_vec()));
            RandomWeights::default().tensor(name, shape)
        }
        fn contains(&self, _name: &str) -> bool {
            true
        }
    }
    for changes in families() {
        let config: ModelConfig = tiny::config(changes);
        let mut recorder = Recorder(Vec::new());
        CausalLm::from_source(
            &config,
            &mut recorder,
            &lm::Device::cpu(),
            lm::Precision::F32,
        )
        .unwrap();
        let mut listed = config.tensor_shapes();
        listed.sort();
        recorder.0.sort();
        assert_eq!(recorder.0, listed);
    }
}

#[test]
fn a_weight_that_is_not_finite_is_refused_by_name() {
    let name = "model.norm.weight".to_owned();
    let mut replaced = vec![1.0; 24];
    replaced[5] = f32::NAN;
    let mut weights = RandomWeights {
        replaced: HashMap::from([(name.clone(), replaced)]),
    };
    let loaded = CausalLm::from_source(
        &tiny::config(json!({})),
        &mut weights,
        &lm::Device::cpu(),
        lm::Precision::F32,
    );
    assert!(matches!(loaded, Err(LoadError::NonFinite(found)) if found == name));
}

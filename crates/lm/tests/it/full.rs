//! Full fine-tuning: what moves, what stays, and its files.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use lm::{CausalLm, Device, FullWeights, LoadError, Precision, WeightSource};
use serde_json::json;

use crate::adapter::{batch, hidden};
use crate::forward::values;
use crate::tiny::{self, RandomWeights, families};

fn loss(model: &CausalLm) -> Tensor<1> {
    let targets = Arc::from([3, 1, 4, 1, 5, 9, 2]);
    let rows = model.cross_entropy(model.hidden(&batch(), None, None), &targets);
    rows.narrow(1, 0, 1).sum()
}

/// The weights after one step of plain gradient descent.
fn stepped(model: &CausalLm, train_embeddings: bool) -> FullWeights {
    let weights = model.trainable(train_embeddings);
    let leaves = weights.clone().require_grad();
    let graph = loss(&model.autodiff().with_weights(&leaves)).backward();
    let tensors: Vec<_> = leaves.named_tensors().map(|(_, tensor)| tensor).collect();
    let mut gradients = tensors.into_iter().map(|leaf| leaf.grad(&graph).unwrap());
    weights.map(|_, tensor| tensor - gradients.next().unwrap().mul_scalar(0.01))
}

/// Every tensor of a model by its name in files.
fn tensors(model: &CausalLm, source: &mut dyn WeightSource) -> HashMap<String, Vec<f32>> {
    let shapes = model.config().tensor_shapes().into_iter();
    shapes
        .map(|(name, shape)| {
            let values = source.tensor(&name, &shape).unwrap();
            (name, values)
        })
        .collect()
}

#[test]
fn weights_that_have_not_moved_change_nothing() {
    for changes in families() {
        let model = tiny::model(changes);
        let expected = hidden(&model, None);
        for train_embeddings in [false, true] {
            let weights = model.trainable(train_embeddings);
            assert_eq!(hidden(&model.with_weights(&weights), None), expected);
            let learning = model.autodiff().with_weights(&weights.require_grad());
            assert_eq!(hidden(&learning, None), expected);
        }
    }
}

#[test]
fn a_step_lowers_the_loss_and_moves_every_weight_but_frozen_embeddings() {
    for changes in families() {
        let model = tiny::model(changes);
        for train_embeddings in [false, true] {
            let weights = stepped(&model, train_embeddings);
            let moved = model.with_weights(&weights);
            assert!(values(loss(&moved))[0] < values(loss(&model))[0]);
            let before = tensors(&model, &mut RandomWeights::default());
            let after = tensors(&model, &mut weights.over(&mut RandomWeights::default()));
            for (name, before) in &before {
                let frozen = name.contains("embed_tokens") && !train_embeddings;
                assert_eq!(before == &after[name], frozen, "{name}");
            }
        }
    }
}

#[test]
fn a_narrow_base_learns_in_f32() {
    let config = tiny::config(json!({"tie_word_embeddings": true}));
    let (mut source, device) = (RandomWeights::default(), Device::cpu());
    let narrow = CausalLm::from_source(&config, &mut source, &device, Precision::Bf16).unwrap();
    let wide = tiny::model(json!({"tie_word_embeddings": true}));
    let learning = |train_embeddings| {
        let weights = stepped(&narrow, train_embeddings);
        let model = narrow.with_weights(&weights);
        assert!(values(loss(&model))[0] < values(loss(&narrow))[0]);
        model.kernels()
    };
    // The tied head stays as it is when it does not learn, and so do the kernels that multiply with it.
    assert_eq!(learning(false), narrow.kernels());
    assert_eq!(learning(true), wide.kernels());
}

#[test]
fn saved_weights_load_bit_equal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let bits = |weights: &FullWeights| {
        let tensors = weights.named_tensors();
        tensors
            .map(|(name, tensor)| (name, values(tensor.clone())))
            .collect::<Vec<_>>()
    };
    for changes in families() {
        let model = tiny::model(changes);
        for train_embeddings in [false, true] {
            let weights = stepped(&model, train_embeddings);
            weights.save(&path).unwrap();
            let loaded = FullWeights::load(&path, &model).unwrap();
            assert_eq!(loaded.train_embeddings(), train_embeddings);
            assert_eq!(bits(&loaded), bits(&weights));
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_model_read_from_the_weights_is_the_one_that_learned() {
    for changes in families() {
        let model = tiny::model(changes);
        let weights = stepped(&model, true);
        let learned = model.with_weights(&weights);
        let mut base = RandomWeights::default();
        let mut source = weights.over(&mut base);
        let device = Device::cpu();
        let read =
            CausalLm::from_source(model.config(), &mut source, &device, Precision::F32).unwrap();
        let logits = |model: &CausalLm| values(model.logits(model.hidden(&batch(), None, None)));
        assert_eq!(logits(&read), logits(&learned));
        assert_ne!(logits(&read), logits(&model));
    }
}

#[test]
fn files_of_another_model_or_that_are_absent_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let model = tiny::model(json!({}));
    let load = |model: &CausalLm| FullWeights::load(&path, model).unwrap_err();
    assert!(matches!(load(&model), LoadError::MissingFile(_)));
    let weights = model.trainable(true);
    weights.save(&path).unwrap();
    let wider = load(&tiny::model(json!({"intermediate_size": 48})));
    assert!(matches!(wider, LoadError::WrongShape { .. }), "{wider}");
    let deeper = load(&tiny::model(json!({"num_hidden_layers": 3})));
    assert!(matches!(deeper, LoadError::MissingTensor(_)), "{deeper}");
    let shallower = load(&tiny::model(json!({"num_hidden_layers": 1})));
    assert!(matches!(shallower, LoadError::UnexpectedTensor(_)));
    let infinite = weights.map(|_, tensor| {
        let dims = tensor.dims();
        let n = dims[0] * dims[1];
        Tensor::from_data(
            TensorData::new(vec![f32::INFINITY; n], dims),
            &tensor.device(),
        )
    });
    infinite.save(&path).unwrap();
    assert!(matches!(load(&model), LoadError::NonFinite(_)));
}

//! Activations computed again give the gradients of those that were kept, to the bit.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use lm::{Activations, Adapter, CausalLm, Dropout, Learned, LoraConfig, Ragged, Target};
use serde_json::json;

use crate::forward::values;
use crate::tiny::{self, families, random};

/// The loss of every second token, each of another weight; counts the tokens on the way.
fn objective(model: &CausalLm, hidden: Tensor<2>) -> (Tensor<1>, (f32, usize)) {
    let [n_tokens, _] = hidden.dims();
    let positions: Vec<i64> = (0..i64::try_from(n_tokens).unwrap()).step_by(2).collect();
    let n = positions.len();
    let (positions, device) = (TensorData::new(positions, [n]), hidden.device());
    let rows = hidden.select(0, Tensor::from_data(positions, &device));
    let targets: Arc<[u32]> = (0..u32::try_from(n).unwrap()).collect();
    let nll = model.cross_entropy(rows, &targets).narrow(1, 0, 1);
    let weights = TensorData::new(random("weights", n), [n, 1]);
    let loss = (nll * Tensor::from_data(weights, &device)).sum();
    (loss.clone(), (loss.into_scalar(), n))
}

fn batches() -> [Ragged; 2] {
    [
        Ragged::from_rows([&[1, 2, 3, 4][..], &[5, 6, 7]]),
        Ragged::single(&[3]),
    ]
}

fn same(model: &CausalLm, learned: &Learned, dropout: Option<&Dropout>) {
    for input in batches() {
        let run = |activations| {
            let ((loss, n), gradients) =
                model.gradients(learned, &input, dropout, activations, objective);
            let gradients: Vec<_> = gradients.into_iter().map(values).collect();
            (loss.to_bits(), n, gradients)
        };
        let kept = run(Activations::Kept);
        let names: Vec<_> = learned.named_tensors().map(|(name, _)| name).collect();
        assert_eq!(kept.2.len(), names.len());
        let again = run(Activations::Recomputed);
        assert_eq!((again.0, again.1), (kept.0, kept.1));
        for (name, (again, kept)) in names.iter().zip(again.2.iter().zip(&kept.2)) {
            assert_eq!(again, kept, "{name}");
        }
        let moving = kept.2.iter().flatten().filter(|value| **value != 0.0);
        assert!(moving.count() > 100);
    }
}

fn adapter(model: &CausalLm, config: &LoraConfig) -> Learned {
    let adapter = Adapter::init(config, model, 1).map(|name, tensor| {
        let moved = random(name, tensor.shape().num_elements());
        let moved = TensorData::new(moved, tensor.shape());
        tensor.clone() + Tensor::from_data(moved, &tensor.device()) * 0.3
    });
    Learned::Adapter(adapter)
}

#[test]
fn with_an_adapter() {
    for changes in families() {
        let model = tiny::model(changes);
        for use_dora in [false, true] {
            let config = LoraConfig {
                use_dora,
                ..tiny::lora()
            };
            let learned = adapter(&model, &config);
            same(&model, &learned, None);
            same(&model, &learned, Some(&Dropout { rate: 0.3, key: 9 }));
        }
    }
}

#[test]
fn with_an_adapter_of_the_last_matrix_alone() {
    let model = tiny::model(json!({"num_hidden_layers": 5}));
    let config = LoraConfig {
        target_modules: vec![Target::Down],
        ..tiny::lora()
    };
    same(&model, &adapter(&model, &config), None);
}

#[test]
fn with_all_weights() {
    for changes in families() {
        let model = tiny::model(changes);
        for train_embeddings in [false, true] {
            same(
                &model,
                &Learned::Full(model.trainable(train_embeddings)),
                None,
            );
        }
    }
}

#[test]
fn gradients_are_those_of_the_graph_written_out() {
    let model = tiny::model(json!({}));
    let learned = adapter(&model, &tiny::lora());
    let [input, _] = batches();
    let Learned::Adapter(leaves) = learned.clone().require_grad() else {
        panic!("it is an adapter");
    };
    let graph_model = model.autodiff();
    let (loss, _) = objective(
        &graph_model,
        graph_model.hidden(&input, Some(&leaves), None),
    );
    let graph = loss.backward();
    let (_, found) = model.gradients(&learned, &input, None, Activations::Kept, objective);
    for ((name, leaf), found) in leaves.named_tensors().zip(found) {
        assert_eq!(values(leaf.grad(&graph).unwrap()), values(found), "{name}");
    }
}

#[test]
fn what_the_loss_does_not_depend_on_has_a_gradient_of_zero() {
    let model = tiny::model(json!({}));
    let learned = adapter(&model, &tiny::lora());
    let [input, _] = batches();
    for activations in [Activations::Kept, Activations::Recomputed] {
        let nothing = |_: &CausalLm, hidden: Tensor<2>| (hidden.mul_scalar(0.0).sum(), ());
        let ((), gradients) = model.gradients(&learned, &input, None, activations, nothing);
        let mut gradients = gradients.into_iter().flat_map(values);
        assert!(gradients.all(|value| value == 0.0));
    }
}

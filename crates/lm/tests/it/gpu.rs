//! The whole model on the path that GPUs take, against the CPU's.
//!
//! wgpu finds a GPU where there is one; Mesa's lavapipe computes on the CPU what a GPU would.

use std::sync::Arc;

use burn::tensor::Tensor;
use lm::{Adapter, CausalLm, Device, ModelConfig, Precision, Ragged};
use serde_json::json;

use crate::adapter::random_adapter;
use crate::forward::values;
use crate::tiny::{self, RandomWeights, families, largest_difference};

fn gpu() -> Device {
    Device::parse("wgpu").expect("mesa-vulkan-drivers is installed")
}

fn build(config: &ModelConfig, device: &Device) -> CausalLm {
    let mut weights = RandomWeights::default();
    CausalLm::from_source(config, &mut weights, device, Precision::F32).unwrap()
}

/// What each token of a batch is worth in nats, and the gradient of every tensor of the adapter.
fn step(model: &CausalLm, adapter: Adapter) -> (Vec<f32>, Vec<Vec<f32>>) {
    let adapter = adapter.require_grad();
    let batch = Ragged::from_rows([&[1, 2, 3, 4][..], &[5, 6, 7], &[8, 9, 10]]);
    let targets: Arc<[u32]> = (2..12).collect();
    let hidden = model.autodiff().hidden(&batch, Some(&adapter), None);
    let losses: Tensor<2> = model.autodiff().cross_entropy(hidden, &targets);
    let graph = losses.clone().narrow(1, 0, 1).sum().backward();
    let gradients = adapter.named_tensors();
    let gradients = gradients.map(|(_, tensor)| values(tensor.grad(&graph).unwrap()));
    (values(losses.inner()), gradients.collect())
}

#[test]
fn a_step_is_the_cpus() {
    let gpu = gpu();
    for changes in families() {
        let config = tiny::config(changes.clone());
        let model = build(&config, &Device::cpu());
        let adapter = random_adapter(&model);
        let on_gpu = build(&config, &gpu);
        let moved = Adapter::init(adapter.config(), &on_gpu, 1).map(|name, like| {
            let mut all = adapter.named_tensors();
            let (_, tensor) = all.find(|(found, _)| found == name).unwrap();
            tensor.clone().to_device(&like.device())
        });
        let (losses, gradients) = step(&on_gpu, moved);
        let (expected_losses, expected) = step(&model, adapter);
        let difference = largest_difference(&losses, &expected_losses);
        assert!(
            difference < 1e-4,
            "{changes}: losses differ by {difference}"
        );
        for (gradient, expected) in gradients.iter().zip(&expected) {
            let difference = largest_difference(gradient, expected);
            assert!(
                difference < 1e-3,
                "{changes}: gradients differ by {difference}"
            );
        }
    }
}

#[test]
fn a_session_generates_what_the_cpu_does() {
    let config = tiny::config(json!({}));
    let scores = |device: &Device| {
        let mut session = build(&config, device).session();
        session.feed(&[1, 2, 3], None).unwrap();
        session.feed(&[4], None).unwrap()
    };
    assert!(largest_difference(&scores(&gpu()), &scores(&Device::cpu())) < 1e-4);
}

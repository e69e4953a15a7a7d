//! Twenty steps on the real SmolLM2, against PyTorch and PEFT.

use std::path::PathBuf;

use lm::{BaseFiles, Device};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tempfile::TempDir;
use text::Example;
use training::train::Start;

use crate::support::{Recorder, config, rows_of, run};

#[derive(Deserialize)]
struct Reference {
    rows: Vec<Row>,
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
    final_norms: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Row {
    ids: Vec<u32>,
    supervised: Vec<[usize; 2]>,
}

impl Row {
    fn example(&self) -> Example {
        let is_supervised = |i: usize| self.supervised.iter().any(|[a, b]| (*a..*b).contains(&i));
        Example {
            supervised: (0..self.ids.len()).map(is_supervised).collect(),
            ids: self.ids.clone(),
            truncated: false,
        }
    }
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../fixtures/parity.json")).unwrap()
}

/// The reference's optimizer: constant rate, no decay, no clipping, rows in order, four at a time.
fn settings() -> Value {
    json!({
        "n_epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "lr_schedule": "constant",
        "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 0.0, "shuffle": false, "seed": 0,
        "lora": {"rank": 8, "alpha": 16.0},
    })
}

/// The base model that `script/bootstrap` fetches.
fn smollm2() -> PathBuf {
    let models = std::env::var_os("ATTUNE_MODELS_DIR").map_or_else(
        || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
                || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
                PathBuf::from,
            );
            cache.join("attune/models")
        },
        PathBuf::from,
    );
    let path = models.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(
        path.is_file(),
        "{} is missing; run script/bootstrap",
        path.display()
    );
    path
}

fn relative(found: f64, expected: f64) -> f64 {
    ((found - expected) / expected).abs()
}

#[test]
fn twenty_steps_have_the_references_losses_and_gradients() {
    let reference = reference();
    let rows = rows_of(reference.rows.iter().map(Row::example).collect());
    let model = BaseFiles::open(&smollm2())
        .unwrap()
        .load(&Device::cpu(), lm::Precision::F32)
        .unwrap();
    let dir = TempDir::new().unwrap();
    // Seed 0 draws A as the reference did.
    let (trained, seen) = run(
        &model,
        &config(&settings()),
        &rows,
        Start::Fresh,
        dir.path(),
        Recorder::default(),
    );
    let trained = trained.unwrap();

    assert_eq!(seen.steps.len(), reference.losses.len());
    let worst = seen
        .losses()
        .iter()
        .zip(&reference.losses)
        .map(|(found, expected)| relative(f64::from(*found), *expected))
        .fold(0.0, f64::max);
    println!("worst relative difference of a loss: {worst:.2e}");
    assert!(
        worst < 1e-3,
        "a loss is off by {worst:e}: {:?}",
        seen.losses()
    );
    for (step, expected) in seen.steps.iter().zip(&reference.grad_norms) {
        let off = relative(step.grad_norm, *expected);
        assert!(
            off < 1e-3,
            "the gradient norm of step {} is off by {off:e}",
            step.step
        );
    }
    let mut compared = 0;
    for (name, tensor) in trained.adapter.named_tensors() {
        if let Some(expected) = reference.final_norms.get(&name) {
            let norm: f32 = tensor.clone().square().sum().sqrt().into_scalar();
            let off = relative(f64::from(norm), *expected);
            assert!(off < 1e-2, "{name} ends {off:e} off");
            compared += 1;
        }
    }
    assert_eq!(compared, reference.final_norms.len());
}

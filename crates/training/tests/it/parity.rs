//! Steps on the real SmolLM2, against PyTorch and PEFT.

use std::path::PathBuf;

use dataset::Judgement;
use lm::{BaseFiles, CausalLm, Device};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use text::Example;
use training::{Rows, Sample, Trained};

use crate::support::{config, rows_of, rows_of_samples, train_on};

#[derive(Deserialize)]
struct Reference {
    rows: Vec<Row>,
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
    #[serde(default)]
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

fn model() -> CausalLm {
    let files = BaseFiles::open(&smollm2()).unwrap();
    files.load(&Device::cpu(), lm::Precision::F32).unwrap()
}

fn relative(found: f64, expected: f64) -> f64 {
    ((found - expected) / expected).abs()
}

/// Trains on `rows` and holds every step's loss and the gradient norms that are known against the reference's.
fn train_as(reference: &Reference, settings: &Value, rows: &Rows) -> Trained {
    // Seed 0 draws A as the reference did.
    let (trained, seen) = train_on(&model(), &config(settings), rows);
    assert_eq!(seen.steps.len(), reference.losses.len());
    let pairs = seen.steps.iter().zip(&reference.losses);
    let off = pairs.map(|(step, expected)| relative(f64::from(step.train_loss), *expected));
    let worst = off.fold(0.0, f64::max);
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
    trained
}

#[test]
fn twenty_steps_have_the_references_losses_and_gradients() {
    let reference: Reference =
        serde_json::from_str(include_str!("../fixtures/parity.json")).unwrap();
    let rows: Vec<Example> = reference.rows.iter().map(Row::example).collect();
    let trained = train_as(&reference, &settings(), &rows_of(&rows));
    let mut compared = 0;
    for (name, tensor) in trained.learned.named_tensors() {
        if let Some(expected) = reference.final_norms.get(&name) {
            let norm: f32 = tensor.clone().square().sum().sqrt().into_scalar();
            let off = relative(f64::from(norm), *expected);
            assert!(off < 1e-2, "{name} ends {off:e} off");
            compared += 1;
        }
    }
    assert_eq!(compared, reference.final_norms.len());
}

#[test]
fn five_steps_of_dpo_have_the_references_losses_and_gradients() {
    let reference: Reference =
        serde_json::from_str(include_str!("../fixtures/parity_dpo.json")).unwrap();
    let pair = |[better, worse]: [&Row; 2]| Sample {
        example: better.example(),
        judgement: Judgement::BetterThan(worse.example()),
    };
    let steps = reference.rows.as_chunks::<4>().0.iter();
    let pairs: Vec<Sample> = steps
        .flat_map(|[a, b, c, d]| [[a, c], [b, d]])
        .map(pair)
        .collect();
    let mut settings = settings();
    settings["method"] = json!("dpo");
    settings["beta"] = json!(0.1);
    settings["batch_size"] = json!(2);
    train_as(&reference, &settings, &rows_of_samples(&pairs));
}

//! SmolLM2-135M-Instruct against the reference implementation, to 2e-3 absolute.
//!
//! `batch0.json` and `step0_logits.json` were made by PyTorch and transformers on the CPU in f32,
//! from the weights of the same file.

use std::path::PathBuf;

use burn::tensor::{Tensor, activation};
use lm::{Adapter, BaseFiles, CausalLm, Device, LoraConfig, Ragged, Target};
use serde::Deserialize;

use crate::forward::values;

const TOLERANCE: f32 = 2e-3;

#[derive(Deserialize)]
struct Batch {
    /// Right-padded.
    input_ids: Vec<Vec<u32>>,
    attention_mask_lens: Vec<usize>,
    /// -100 where nothing is to be predicted.
    labels: Vec<Vec<i64>>,
}

#[derive(Deserialize)]
struct Reference {
    logits: Vec<Position>,
    per_token_nll_supervised: Vec<f32>,
}

#[derive(Deserialize)]
struct Position {
    row: usize,
    pos: usize,
    top50_ids: Vec<usize>,
    top50_logits: Vec<f32>,
    logsumexp: f32,
}

/// The file that `script/bootstrap` fetches.
fn model_path() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    let models = std::env::var_os("ATTUNE_MODELS_DIR")
        .map_or_else(|| cache.join("attune/models"), PathBuf::from);
    let path = models.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(
        path.is_file(),
        "{} is missing; script/bootstrap fetches it",
        path.display()
    );
    path
}

fn smollm2() -> CausalLm {
    BaseFiles::open(&model_path())
        .unwrap()
        .load(&Device::cpu(), lm::Precision::F32)
        .unwrap()
}

fn batch() -> Batch {
    serde_json::from_str(include_str!("../fixtures/batch0.json")).unwrap()
}

fn ragged(batch: &Batch) -> Ragged {
    let rows = batch.input_ids.iter().zip(&batch.attention_mask_lens);
    Ragged::from_rows(rows.map(|(ids, len)| &ids[..*len]))
}

/// Rows of `logits` at these tokens.
fn rows(logits: &Tensor<2>, tokens: &[usize]) -> Vec<Vec<f32>> {
    tokens
        .iter()
        .map(|token| values(logits.clone().narrow(0, *token, 1)))
        .collect()
}

fn logsumexp(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|logit| f64::from(logit - max).exp()).sum();
    #[expect(clippy::cast_possible_truncation, reason = "compared with an f32")]
    let sum = sum.ln() as f32;
    max + sum
}

#[test]
fn logits_and_losses_equal_the_reference() {
    let reference: Reference =
        serde_json::from_str(include_str!("../fixtures/step0_logits.json")).unwrap();
    let batch = batch();
    let input = ragged(&batch);
    let starts: Vec<usize> = input.ranges().map(|range| range.start).collect();
    let model = smollm2();
    // At B = 0 the adapter adds exactly nothing; it is here as it is in the reference.
    let config = LoraConfig {
        rank: 8,
        alpha: 16.0,
        use_rslora: false,
        use_dora: false,
        dropout: 0.0,
        target_modules: Target::ALL.to_vec(),
    };
    let adapter = Adapter::init(&config, &model, 0);
    let logits = model.logits(model.hidden(&input, Some(&adapter), None));

    let mut worst = 0.0_f32;
    for position in &reference.logits {
        let row = &rows(&logits, &[starts[position.row] + position.pos])[0];
        worst = worst.max((logsumexp(row) - position.logsumexp).abs());
        for (id, expected) in position.top50_ids.iter().zip(&position.top50_logits) {
            worst = worst.max((row[*id] - expected).abs());
        }
    }
    assert!(worst < TOLERANCE, "logits differ by {worst}");

    let log_probs = activation::log_softmax(logits, 1);
    let supervised = batch
        .labels
        .iter()
        .zip(&starts)
        .flat_map(|(labels, start)| {
            let targets = labels.iter().enumerate().filter(|(_, label)| **label >= 0);
            targets.map(move |(position, label)| {
                (start + position - 1, usize::try_from(*label).unwrap())
            })
        });
    let nll: Vec<f32> = supervised
        .map(|(token, label)| -rows(&log_probs, &[token])[0][label])
        .collect();
    assert_eq!(nll.len(), reference.per_token_nll_supervised.len());
    let worst = nll
        .iter()
        .zip(&reference.per_token_nll_supervised)
        .map(|(found, expected)| (found - expected).abs())
        .fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "losses differ by {worst}");
}

#[test]
fn the_session_speaks_as_the_forward_pass_does() {
    let model = smollm2();
    let prompt = &batch().input_ids[0][..60];
    let mut session = model.session();
    let mut logits = session.feed(&prompt[..50], None).unwrap();
    for id in &prompt[50..] {
        logits = session.feed(&[*id], None).unwrap();
    }
    let hidden = model.hidden(&Ragged::single(prompt), None, None);
    let expected = values(model.logits(hidden.narrow(0, prompt.len() - 1, 1)));
    let difference = crate::tiny::largest_difference(&logits, &expected);
    assert!(difference < 1e-3, "{difference}");
}

//! What training must and must not do, on a tiny model.

use domain::TrainingConfig;
use lm::{Adapter, CausalLm};
use serde_json::json;
use tempfile::TempDir;
use text::Example;
use training::objective::{self, Policy, Reference};
use training::{Evaluation, Rows, Run, Sample, TrainError, eval};

use crate::support::{
    Recorder, bits, config, example, examples, rows, rows_of, run_of, tiny_model, train_on, watch,
};

fn losses(rows: &Rows, settings: &serde_json::Value) -> Vec<f32> {
    train_on(&tiny_model(), &config(settings), rows).1.losses()
}

fn evaluate(model: &CausalLm, adapter: Option<&Adapter>, rows: &[Example]) -> Evaluation {
    let reference = Reference {
        model,
        adapter: None,
    };
    let policy = Policy {
        model: model.clone(),
        adapter,
        reference,
    };
    let samples: Vec<Sample> = rows.iter().cloned().map(Sample::plain).collect();
    let likelihood = objective::of(&TrainingConfig::default());
    eval::evaluate_samples(likelihood.as_ref(), &policy, &samples).unwrap()
}

#[test]
fn one_batch_is_learned_by_heart() {
    let settings = json!({
        "n_epochs": 50, "batch_size": 4, "max_steps": 50, "learning_rate": 3e-2,
        "lr_schedule": "constant", "warmup_steps": 0, "lora": {"rank": 8},
    });
    let losses = losses(&rows(4), &settings);
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < first / 4.0, "from {first} to {last}");
}

#[test]
fn the_loss_does_not_depend_on_how_a_global_batch_is_split() {
    let split = |batch_size: u64, grad_accum: u64| {
        let settings = json!({
            "n_epochs": 2, "batch_size": batch_size, "grad_accum": grad_accum, "seed": 4,
            "learning_rate": 1e-2, "lora": {"rank": 4},
        });
        losses(&rows(8), &settings)
    };
    let whole = split(4, 1);
    for (a, b) in whole
        .iter()
        .zip(split(2, 2))
        .chain(whole.iter().zip(split(1, 4)))
    {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn a_masked_target_does_not_move_the_loss() {
    let settings = json!({"n_epochs": 1, "batch_size": 1, "shuffle": false, "lora": {"rank": 2}});
    // The last token is seen by nothing that is supervised, so only its being a target could matter.
    let with_last = |last: u32| {
        let mut row = example(&[10, 11, 12, 13, last], 2);
        row.supervised[4] = false;
        losses(&rows_of(&[row]), &settings)
    };
    assert_eq!(with_last(14), with_last(99));
}

#[test]
fn a_row_has_the_same_loss_among_others_and_alone() {
    let (model, rows) = (tiny_model(), examples(9));
    let together = evaluate(&model, None, &rows);
    let (mut nll, mut n_loss_tokens) = (0.0, 0.0);
    for row in rows.chunks(1) {
        let alone = evaluate(&model, None, row);
        let n = f64::from(u32::try_from(alone.n_loss_tokens).unwrap());
        (nll, n_loss_tokens) = (nll + alone.loss * n, n_loss_tokens + n);
    }
    let alone = nll / n_loss_tokens;
    assert!(
        (together.loss - alone).abs() < 1e-5,
        "{} and {alone}",
        together.loss
    );
}

#[test]
fn a_new_adapter_changes_nothing() {
    let (model, rows) = (tiny_model(), examples(6));
    let lora = training::settings::lora_config(config(&json!({})).lora().unwrap());
    let adapter = lm::Adapter::init(&lora, &model, 1);
    let with = evaluate(&model, Some(&adapter), &rows);
    let without = evaluate(&model, None, &rows);
    assert_eq!(with, without);
}

#[test]
fn a_seed_decides_everything() {
    let with_seed = |seed: u64| {
        let settings = json!({
            "n_epochs": 2, "batch_size": 2, "seed": seed, "lora": {"rank": 2, "dropout": 0.2},
        });
        losses(&rows(8), &settings)
    };
    assert_eq!(with_seed(1), with_seed(1));
    assert_ne!(with_seed(1), with_seed(2));
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_names_the_lines_and_saves_nothing() {
    let settings = json!({
        "n_epochs": 1, "batch_size": 2, "shuffle": false, "checkpoint_every": 1, "lora": {"rank": 2},
    });
    let (model, config, rows) = (tiny_model(), config(&settings), rows(4));
    let lora = training::settings::lora_config(config.lora().unwrap());
    let broken = Adapter::init(&lora, &model, 1).map(|_, tensor| tensor.ones_like() * 1e38);
    let dir = TempDir::new().unwrap();
    let run = Run {
        initial: Some(broken),
        ..run_of(&model, &config, &rows, dir.path())
    };
    let (trained, seen) = watch(run, Recorder::default());
    let Err(TrainError::NonFinite {
        what, step, lines, ..
    }) = trained
    else {
        panic!("losses stayed finite: {:?}", seen.losses());
    };
    assert_eq!((what, step, lines), ("loss", 1, vec![1, 2]));
    assert!(seen.steps.is_empty());
    assert!(training::checkpoint::latest(dir.path(), &model).0.is_none());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let settings = json!({
        "n_epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "lora": {"rank": 4, "dropout": 0.1},
    });
    let (model, config, rows) = (tiny_model(), config(&settings), rows(12));
    let with_threads = |n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n);
        let pool = pool.build().unwrap();
        let (trained, seen) = pool.install(|| train_on(&model, &config, &rows));
        (bits(&trained), seen.losses())
    };
    let one = with_threads(1);
    assert_eq!(with_threads(2), one);
    assert_eq!(with_threads(5), one);
}

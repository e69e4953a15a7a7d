//! Every method learns: on rows it has not seen, its loss ends clearly below that of the same run with a frozen adapter.

use std::ops::Range;

use dataset::Judgement;
use domain::TrainingConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use text::Example;
use training::{Rows, Run, Sample, StepReport};

use crate::support::{Recorder, config, example, rows_of_samples, run_of, tiny_model, watch};

/// Makes the rows of these numbers.
type MakeRows = fn(Range<usize>) -> Rows;

/// By how much, as a share of the control's loss.
const MARGIN: f64 = 0.1;

/// An answer counts up from its prompt's last token; a bad one counts down.
fn answer(row: usize, is_good: bool) -> Example {
    let start = 20 + (row * 7) % 30;
    let count = |i: usize| if is_good { start + i } else { start - i };
    let ids: Vec<u32> = (0..4)
        .map(|i| 60 + (row + i) % 8)
        .chain((0..6).map(count))
        .map(|id| u32::try_from(id).unwrap())
        .collect();
    example(&ids, 5)
}

fn chats(rows: Range<usize>) -> Rows {
    let rows: Vec<Sample> = rows.map(|row| Sample::plain(answer(row, true))).collect();
    rows_of_samples(&rows)
}

fn pairs(rows: Range<usize>) -> Rows {
    let pair = |row| Sample {
        example: answer(row, true),
        judgement: Judgement::BetterThan(answer(row, false)),
    };
    rows_of_samples(&rows.map(pair).collect::<Vec<_>>())
}

fn judged(rows: Range<usize>) -> Rows {
    let row = |row| Sample {
        example: answer(row, row % 2 == 0),
        judgement: if row % 2 == 0 {
            Judgement::Good
        } else {
            Judgement::Bad
        },
    };
    rows_of_samples(&rows.map(row).collect::<Vec<_>>())
}

/// The loss on unseen rows after training, and what the run saw.
fn valid_loss(config: &TrainingConfig, rows: MakeRows) -> (f64, Vec<StepReport>) {
    let (model, train, valid) = (tiny_model(), rows(0..48), rows(50..66));
    let dir = TempDir::new().unwrap();
    let run = Run {
        valid: Some(&valid),
        ..run_of(&model, config, &train, dir.path())
    };
    let (trained, seen) = watch(run, Recorder::default());
    let trained = trained.unwrap();
    (trained.valid.unwrap().loss, seen.steps)
}

fn learns(settings: &Value, rows: MakeRows) {
    let mut settings = settings.clone();
    let common = json!({
        "n_epochs": 8, "batch_size": 4, "grad_accum": 2, "lr_schedule": "constant", "warmup_steps": 0,
        "checkpoint_every": 12,
    });
    for (name, value) in common.as_object().unwrap() {
        settings[name] = value.clone();
    }
    let (learned, _) = valid_loss(&config(&settings), rows);
    // As good as frozen: no step moves a value by more than a billionth.
    settings["learning_rate"] = json!(1e-12);
    let (control, _) = valid_loss(&config(&settings), rows);
    assert!(
        learned < control * (1.0 - MARGIN),
        "{settings}: {learned} against a frozen {control}"
    );
}

#[test]
fn supervised_lora_learns() {
    learns(&json!({"learning_rate": 1e-2}), chats);
}

#[test]
fn rslora_learns() {
    learns(
        &json!({"learning_rate": 1e-2, "lora": {"use_rslora": true, "rank": 16, "alpha": 4}}),
        chats,
    );
}

#[test]
fn dora_learns() {
    learns(
        &json!({"learning_rate": 1e-2, "lora": {"use_dora": true}}),
        chats,
    );
}

#[test]
fn some_target_modules_learn() {
    learns(
        &json!({"learning_rate": 1e-2, "lora": {"target_modules": ["q_proj", "down_proj"]}}),
        chats,
    );
}

#[test]
fn every_weight_learns() {
    learns(&json!({"tuning": "full", "learning_rate": 3e-3}), chats);
    learns(
        &json!({"tuning": "full", "train_embeddings": true, "learning_rate": 3e-3}),
        chats,
    );
}

#[test]
fn dpo_learns() {
    learns(&json!({"method": "dpo", "learning_rate": 1e-2}), pairs);
}

#[test]
fn ipo_learns() {
    learns(
        &json!({"method": "ipo", "beta": 1.0, "learning_rate": 1e-2}),
        pairs,
    );
}

#[test]
fn orpo_learns() {
    learns(&json!({"method": "orpo", "learning_rate": 1e-2}), pairs);
}

#[test]
fn simpo_learns() {
    learns(&json!({"method": "simpo", "learning_rate": 1e-2}), pairs);
}

#[test]
fn kto_learns() {
    learns(
        &json!({"method": "kto", "beta": 1.0, "learning_rate": 1e-2}),
        judged,
    );
}

#[test]
fn no_methods_loss_depends_on_how_a_global_batch_is_split() {
    let cases: [(&str, MakeRows); 6] = [
        ("supervised", chats),
        ("dpo", pairs),
        ("ipo", pairs),
        ("orpo", pairs),
        ("simpo", pairs),
        ("kto", judged),
    ];
    for (method, rows) in cases {
        let losses = |batch_size: u64, grad_accum: u64| {
            let settings = json!({
                "method": method, "n_epochs": 1, "batch_size": batch_size, "grad_accum": grad_accum, "seed": 4,
                "learning_rate": 1e-2, "lora": {"rank": 4},
            });
            let (_, steps) = valid_loss(&config(&settings), rows);
            steps.iter().map(|step| step.train_loss).collect::<Vec<_>>()
        };
        let whole = losses(8, 1);
        for split in [losses(4, 2), losses(1, 8)] {
            for (a, b) in whole.iter().zip(&split) {
                assert!(
                    (a - b).abs() < 1e-5 * a.abs().max(1.0),
                    "{method}: {a} and {b}"
                );
            }
        }
    }
}

//! What keeps a model from forgetting.

use serde_json::{Value, json};
use tempfile::TempDir;
use training::report::closing_remarks;
use training::{Rows, Run, Trained};

use crate::support::{Recorder, config, example, rows, rows_of, run_of, tiny_model, watch};

/// Rows whose answers are always the same token, which no other row has.
fn one_note(n: usize) -> Rows {
    let row = |row: usize| {
        let prompt = u32::try_from(10 + row % 20).unwrap();
        example(&[prompt, 90, 90, 90], 1)
    };
    rows_of(&(0..n).map(row).collect::<Vec<_>>())
}

fn settings(more: &Value) -> Value {
    let mut settings = json!({
        "n_epochs": 6, "batch_size": 4, "learning_rate": 1e-2, "lr_schedule": "constant", "warmup_steps": 0,
        "keep": "last", "lora": {"rank": 8},
    });
    for (name, value) in more.as_object().unwrap() {
        settings[name] = value.clone();
    }
    settings
}

/// Trains on `train` and says what is made of `valid` then.
fn valid_loss(settings: &Value, train: &Rows, replay: Option<&Rows>, valid: &Rows) -> f64 {
    trained(settings, train, replay, valid)
        .0
        .valid
        .unwrap()
        .loss
}

fn trained(
    settings: &Value,
    train: &Rows,
    replay: Option<&Rows>,
    valid: &Rows,
) -> (Trained, Recorder) {
    let (model, config, dir) = (tiny_model(), config(settings), TempDir::new().unwrap());
    let run = Run {
        replay,
        valid: Some(valid),
        ..run_of(&model, &config, train, dir.path())
    };
    let (trained, seen) = watch(run, Recorder::default());
    (trained.unwrap(), seen)
}

#[test]
fn replayed_rows_are_not_forgotten() {
    let (train, old) = (one_note(24), rows(12));
    let without = valid_loss(&settings(&json!({})), &train, None, &old);
    let asked = settings(&json!({"replay": {"ratio": 0.3}}));
    let with = valid_loss(&asked, &train, Some(&old), &old);
    assert!(with < without * 0.8, "{with} with and {without} without");
}

#[test]
fn a_weight_on_the_divergence_keeps_the_model_near_its_base() {
    // What the base makes of rows it is not trained on is what is to stay.
    let (train, other) = (one_note(24), rows(12));
    let free = valid_loss(&settings(&json!({})), &train, None, &other);
    let held = valid_loss(&settings(&json!({"kl_weight": 1.0})), &train, None, &other);
    let base = valid_loss(
        &settings(&json!({"learning_rate": 1e-12})),
        &train,
        None,
        &other,
    );
    assert!(
        (held - base).abs() < 0.7 * (free - base).abs(),
        "base {base}, held {held}, free {free}"
    );
}

#[test]
fn a_run_stops_when_the_validation_loss_does_not_fall_any_more() {
    let (train, valid) = (one_note(24), rows(12));
    let asked = settings(&json!({
        "checkpoint_every": 2, "early_stopping": {"patience": 2}, "keep": "best",
    }));
    let (trained, seen) = trained(&asked, &train, None, &valid);
    assert!(trained.stopped_early && trained.finished);
    assert!(trained.steps < 36, "{} steps", trained.steps);
    let measured: Vec<(u64, f64)> = seen
        .steps
        .iter()
        .filter_map(|step| Some((step.step, step.valid?.loss)))
        .collect();
    let best = measured.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!((trained.chosen_step, trained.valid.unwrap().loss), *best);
    // The last checkpoint is the one after which it stopped.
    assert_eq!(seen.checkpoints.last(), Some(&trained.steps));
    let said: Vec<String> = closing_remarks(&trained)
        .into_iter()
        .map(|remark| remark.text)
        .collect();
    assert!(
        said[0].starts_with(&format!("Stopped after step {}:", trained.steps)),
        "{said:?}"
    );
    assert!(
        said[1].starts_with(&format!(
            "The model is that of step {}",
            trained.chosen_step
        )),
        "{said:?}"
    );
}

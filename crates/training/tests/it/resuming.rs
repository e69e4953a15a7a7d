//! A run that was stopped and resumed is the run that was not.

use std::fs;
use std::path::Path;

use domain::TrainingConfig;
use lm::CausalLm;
use serde_json::{Value, json};
use tempfile::TempDir;
use training::{Checkpoint, Next, Rows, Run, TrainError, Trained, checkpoint};

use crate::support::{Recorder, bits, config, rows, run_of, tiny_model, train_on, watch};

fn settings() -> Value {
    json!({
        "n_epochs": 4, "batch_size": 2, "grad_accum": 2, "learning_rate": 1e-2, "seed": 3,
        "checkpoint_every": 100, "lora": {"rank": 2, "dropout": 0.1},
    })
}

/// What a test runs.
struct Case {
    model: CausalLm,
    config: TrainingConfig,
    rows: Rows,
    valid: Option<Rows>,
}

impl Case {
    fn new(settings: &Value, n_rows: usize) -> Self {
        Self {
            model: tiny_model(),
            config: config(settings),
            rows: rows(n_rows),
            valid: None,
        }
    }

    fn run<'a>(&'a self, dir: &'a Path) -> Run<'a> {
        Run {
            valid: self.valid.as_ref(),
            ..run_of(&self.model, &self.config, &self.rows, dir)
        }
    }

    fn whole(&self) -> (Trained, Recorder) {
        let dir = TempDir::new().unwrap();
        let (trained, seen) = watch(self.run(dir.path()), Recorder::default());
        (trained.unwrap(), seen)
    }

    /// Runs until a checkpoint after `step`.
    fn until(&self, step: u64, dir: &Path) -> (Trained, Recorder) {
        let stopping = Recorder {
            stop_after: Some((step, Next::SaveAndStop)),
            ..Recorder::default()
        };
        let (trained, seen) = watch(self.run(dir), stopping);
        (trained.unwrap(), seen)
    }

    /// Runs until just before a micro-batch.
    fn before(&self, micro_batch: u64, next: Next, dir: &Path) -> (Trained, Recorder) {
        let stopping = Recorder {
            stop_before: Some((micro_batch, next)),
            ..Recorder::default()
        };
        let (trained, seen) = watch(self.run(dir), stopping);
        (trained.unwrap(), seen)
    }

    /// Goes on from the newest whole checkpoint.
    fn resume(&self, dir: &Path) -> (Trained, Recorder) {
        let (trained, seen) = self.resume_from(self.latest(dir), dir);
        (trained.unwrap(), seen)
    }

    fn resume_from(
        &self,
        checkpoint: Checkpoint,
        dir: &Path,
    ) -> (Result<Trained, TrainError>, Recorder) {
        let run = Run {
            resume: Some(Box::new(checkpoint)),
            ..self.run(dir)
        };
        watch(run, Recorder::default())
    }

    fn latest(&self, dir: &Path) -> Checkpoint {
        let (found, _) = checkpoint::latest(dir, &self.model);
        found.unwrap()
    }
}

/// Stopped after any step and resumed, the run is the one that was not stopped.
fn resumes_exactly(case: &Case) {
    let (trained, seen) = case.whole();
    let n_steps = seen.steps.len() as u64;
    for stop in 1..n_steps {
        let dir = TempDir::new().unwrap();
        let (first, before) = case.until(stop, dir.path());
        assert!(!first.finished);
        let (second, after) = case.resume(dir.path());
        assert_eq!([before.losses(), after.losses()].concat(), seen.losses());
        assert_eq!(bits(&second), bits(&trained), "stopped after step {stop}");
        assert_eq!(second.train_tokens, trained.train_tokens);
        assert_eq!(second.chosen_step, trained.chosen_step);
    }
}

#[test]
fn stopping_after_any_step_and_resuming_changes_no_bit() {
    let case = Case::new(&settings(), 12);
    assert_eq!(case.whole().1.steps.len(), 12);
    resumes_exactly(&case);
}

#[test]
fn stopping_within_a_step_saves_the_step_before_and_changes_no_bit() {
    let case = Case::new(&settings(), 12);
    let (trained, seen) = case.whole();
    // Two micro-batches make a step. Within the first there is nothing to save yet.
    for micro_batch in 2..8 {
        let dir = TempDir::new().unwrap();
        let (first, before) = case.before(micro_batch, Next::SaveAndStop, dir.path());
        assert!(!first.finished);
        assert_eq!(before.checkpoints, [micro_batch / 2]);
        let (second, after) = case.resume(dir.path());
        assert_eq!([before.losses(), after.losses()].concat(), seen.losses());
        assert_eq!(bits(&second), bits(&trained), "before {micro_batch}");
    }
}

#[test]
fn a_run_that_is_abandoned_within_a_step_saves_nothing() {
    let case = Case::new(&settings(), 12);
    let dir = TempDir::new().unwrap();
    let (abandoned, seen) = case.before(3, Next::Abandon, dir.path());
    assert!(!abandoned.finished);
    assert_eq!((seen.steps.len(), seen.checkpoints.len()), (1, 0));
    assert!(checkpoint::latest(dir.path(), &case.model).0.is_none());
}

/// Ends after two measurements without a gain, and is measured in several pieces.
fn measured_case() -> Case {
    let settings = json!({
        "n_epochs": 3, "batch_size": 4, "learning_rate": 0.2, "lr_schedule": "constant",
        "checkpoint_every": 2, "keep": "best", "lora": {"rank": 4},
        "early_stopping": {"patience": 2},
    });
    Case {
        valid: Some(rows(600)),
        ..Case::new(&settings, 12)
    }
}

#[test]
fn a_run_that_is_stopped_while_it_measures_stops_there_and_changes_no_bit() {
    let case = measured_case();
    let (trained, seen) = case.whole();
    let valid_steps: Vec<u64> = (seen.steps.iter())
        .filter(|step| step.valid.is_some())
        .map(|step| step.step)
        .collect();
    let n_pieces = (seen.n_micro_batches - trained.steps) / (valid_steps.len() as u64 + 1);
    assert!(n_pieces >= 2, "{n_pieces}");
    assert!(valid_steps.len() >= 2, "{valid_steps:?}");
    for (index, step) in (1..).zip(valid_steps) {
        // Before the last piece: one more, and it would be a measurement.
        let asked = index * n_pieces + step + n_pieces - 1;
        let dir = TempDir::new().unwrap();
        let (first, before) = case.before(asked, Next::SaveAndStop, dir.path());
        assert_eq!(
            before.n_micro_batches,
            asked + 1,
            "it was asked and went on"
        );
        assert!(!first.finished);
        assert_eq!((first.steps, first.valid), (step, None));
        assert_eq!(before.steps.last().unwrap().valid, None);
        assert_eq!(before.checkpoints.last(), Some(&step));
        let (second, after) = case.resume(dir.path());
        assert_eq!([before.losses(), after.losses()].concat(), seen.losses());
        assert_eq!(bits(&second), bits(&trained), "measuring step {step}");
        assert_eq!(
            (second.chosen_step, second.steps, second.valid),
            (trained.chosen_step, trained.steps, trained.valid)
        );
        assert!(second.finished);
    }
}

#[test]
fn a_run_that_is_stopped_before_its_first_step_has_measured_nothing() {
    let case = measured_case();
    for wish in [Next::SaveAndStop, Next::Abandon] {
        let dir = TempDir::new().unwrap();
        let (stopped, seen) = case.before(1, wish, dir.path());
        assert!(!stopped.finished);
        assert_eq!((seen.n_micro_batches, seen.steps.len()), (2, 0));
        assert_eq!((stopped.valid, seen.before), (None, None));
        assert!(checkpoint::latest(dir.path(), &case.model).0.is_none());
    }
}

#[test]
fn a_run_that_is_abandoned_while_it_measures_saves_nothing_of_it() {
    let case = measured_case();
    let (trained, seen) = case.whole();
    let n_valid = seen
        .steps
        .iter()
        .filter(|step| step.valid.is_some())
        .count() as u64;
    let n_pieces = (seen.n_micro_batches - trained.steps) / (n_valid + 1);
    let dir = TempDir::new().unwrap();
    let (abandoned, seen) = case.before(n_pieces + 2, Next::Abandon, dir.path());
    assert_eq!(seen.n_micro_batches, n_pieces + 3);
    assert!(!abandoned.finished && seen.checkpoints.is_empty());
    assert!(checkpoint::latest(dir.path(), &case.model).0.is_none());
}

#[test]
fn every_weight_of_a_model_is_resumed_exactly_too() {
    let case = Case::new(
        &json!({
            "tuning": "full", "train_embeddings": true, "n_epochs": 2, "batch_size": 4,
            "learning_rate": 1e-3, "checkpoint_every": 100,
        }),
        8,
    );
    resumes_exactly(&case);
}

#[test]
fn the_best_state_so_far_is_resumed_with_the_rest() {
    // A rate this high makes the validation loss rise again after the first steps.
    let settings = json!({
        "n_epochs": 3, "batch_size": 4, "learning_rate": 0.2, "lr_schedule": "constant",
        "checkpoint_every": 1, "keep": "best", "lora": {"rank": 4},
    });
    let case = Case {
        valid: Some(rows(5)),
        ..Case::new(&settings, 12)
    };
    let (trained, seen) = case.whole();
    let losses: Vec<f64> = seen
        .steps
        .iter()
        .map(|step| step.valid.unwrap().loss)
        .collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best < losses[losses.len() - 1], "{losses:?}");
    assert_eq!(trained.valid.unwrap().loss.to_bits(), best.to_bits());
    resumes_exactly(&case);
}

#[test]
fn a_run_that_is_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before() {
    let mut settings = settings();
    settings["checkpoint_every"] = json!(1);
    let case = Case::new(&settings, 12);
    let (trained, _) = case.whole();
    let n_files = {
        let dir = TempDir::new().unwrap();
        case.until(7, dir.path());
        fs::read_dir(dir.path().join("step-00000007"))
            .unwrap()
            .count()
    };
    // Killed after any number of its files were begun, the last of them half written.
    for begun in 0..=n_files {
        let dir = TempDir::new().unwrap();
        case.until(7, dir.path());
        let (whole, aside) = (
            dir.path().join("step-00000007"),
            dir.path().join(".writing-step-00000007"),
        );
        fs::rename(&whole, &aside).unwrap();
        let mut files: Vec<_> = fs::read_dir(&aside)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in &files[begun..] {
            fs::remove_file(file).unwrap();
        }
        if let Some(last) = files[..begun].last() {
            let bytes = fs::read(last).unwrap();
            fs::write(last, &bytes[..bytes.len() / 2]).unwrap();
        }
        assert_eq!(case.latest(dir.path()).step, 6);
        let (resumed, _) = case.resume(dir.path());
        assert_eq!(bits(&resumed), bits(&trained), "{begun} files begun");
    }
}

#[test]
fn a_torn_checkpoint_is_passed_over_for_the_one_before() {
    let mut settings = settings();
    settings["checkpoint_every"] = json!(1);
    let case = Case::new(&settings, 8);
    for torn in [
        "optimizer.safetensors",
        "adapter_model.safetensors",
        "state.json",
        "manifest.json",
    ] {
        let dir = TempDir::new().unwrap();
        let (trained, _) = watch(case.run(dir.path()), Recorder::default());
        trained.unwrap();
        let newest = dir.path().join("step-00000008").join(torn);
        let bytes = fs::read(&newest).unwrap();
        fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();

        let (found, passed_over) = checkpoint::latest(dir.path(), &case.model);
        assert_eq!(found.unwrap().step, 7, "{torn}");
        assert_eq!(passed_over.len(), 1, "{torn}");
    }
}

#[test]
fn another_runs_checkpoint_is_refused_by_what_differs() {
    let mut case = Case::new(&settings(), 8);
    let dir = TempDir::new().unwrap();
    case.until(2, dir.path());
    let mut other = settings();
    other["learning_rate"] = json!(1e-3);
    case.config = config(&other);
    let (refused, _) = case.resume_from(case.latest(dir.path()), dir.path());
    let Err(TrainError::Resume(error)) = refused else {
        panic!("it was not refused")
    };
    assert!(error.to_string().contains("its config differs"), "{error}");
}

#[test]
fn a_run_that_started_elsewhere_is_refused() {
    let case = Case::new(&settings(), 8);
    let (before, _) = train_on(&case.model, &case.config, &case.rows);
    let lm::Learned::Adapter(before) = before.learned else {
        panic!("not an adapter")
    };
    let dir = TempDir::new().unwrap();
    let warm = Run {
        initial: Some(before),
        ..case.run(dir.path())
    };
    watch(warm, Recorder::default()).0.unwrap();
    let (refused, _) = case.resume_from(case.latest(dir.path()), dir.path());
    let Err(TrainError::Resume(error)) = refused else {
        panic!("it was not refused")
    };
    assert!(
        error.to_string().contains("its initial model differs"),
        "{error}"
    );
}

#[test]
fn a_checkpoint_of_other_kernels_says_so_and_is_resumed() {
    let case = Case::new(&settings(), 8);
    let dir = TempDir::new().unwrap();
    case.until(3, dir.path());
    let mut found = case.latest(dir.path());
    assert_eq!(found.other_kernels(&case.model), None);

    found.identity.kernels = "another-machine's".to_owned();
    let said = found.other_kernels(&case.model).unwrap();
    assert!(
        said.contains("another-machine's") && said.contains(&case.model.kernels()),
        "{said}"
    );
    let (resumed, after) = case.resume_from(found, dir.path());
    assert!(resumed.unwrap().finished);
    assert_eq!(after.steps[0].step, 4);
}

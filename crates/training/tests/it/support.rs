//! A tiny base model, rows for it, and an observer that remembers.

use std::path::Path;

use domain::auto::Facts;
use domain::{DataReport, Hyperparameters, TrainingConfig};
use lm::{BaseFiles, CausalLm, Device};
use serde_json::Value;
use tempfile::TempDir;
use text::Example;
use training::{
    CheckpointReport, Evaluation, Next, Observer, Rows, Run, Sample, StepReport, TrainError,
    Trained,
};

/// A base model of two layers with random weights.
pub(crate) fn tiny_model() -> CausalLm {
    let dir = TempDir::new().unwrap();
    lm::testing::write_tiny_base(dir.path(), 11);
    BaseFiles::open(dir.path())
        .unwrap()
        .load(&Device::cpu(), lm::Precision::F32)
        .unwrap()
}

/// Settings with every default but what `asked` says.
pub(crate) fn config(asked: &Value) -> TrainingConfig {
    Hyperparameters::parse("", asked)
        .unwrap()
        .resolve(&Facts::default())
}

/// Rows of different lengths, the second half of each supervised. Every row follows one simple rule.
pub(crate) fn rows(n: usize) -> Rows {
    rows_of(&examples(n))
}

/// The same as examples.
pub(crate) fn examples(n: usize) -> Vec<Example> {
    let row = |row| {
        let length = 6 + row % 5;
        let ids = (0..length).map(|i| u32::try_from(10 + (row * 7 + i * 3) % 40).unwrap());
        example(&ids.collect::<Vec<_>>(), length / 2)
    };
    (0..n).map(row).collect()
}

/// A row whose tokens from `first_supervised` on are to be learned.
pub(crate) fn example(ids: &[u32], first_supervised: usize) -> Example {
    Example {
        ids: ids.to_vec(),
        supervised: (0..ids.len()).map(|i| i >= first_supervised).collect(),
        truncated: false,
    }
}

pub(crate) fn rows_of(examples: &[Example]) -> Rows {
    let samples: Vec<Sample> = examples.iter().cloned().map(Sample::plain).collect();
    rows_of_samples(&samples)
}

pub(crate) fn rows_of_samples(samples: &[Sample]) -> Rows {
    let scratch = TempDir::new().unwrap();
    let mut rows = Rows::create(scratch.path()).unwrap();
    for (line, sample) in (1..).zip(samples) {
        rows.push(sample, line, &[0; 32]).unwrap();
    }
    let report = DataReport {
        fingerprint: "rows".to_owned(),
        ..DataReport::default()
    };
    rows.finish(report).unwrap()
}

/// Remembers every step, and ends the run as it is told.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) steps: Vec<StepReport>,
    pub(crate) before: Option<Evaluation>,
    pub(crate) checkpoints: Vec<u64>,
    pub(crate) stop_after: Option<(u64, Next)>,
    /// Before this micro-batch of the run, counted from 0.
    pub(crate) stop_before: Option<(u64, Next)>,
    pub(crate) n_micro_batches: u64,
}

impl Recorder {
    pub(crate) fn losses(&self) -> Vec<f32> {
        self.steps.iter().map(|step| step.train_loss).collect()
    }
}

impl Observer for Recorder {
    fn on_start(&mut self, valid: Option<Evaluation>) {
        self.before = valid;
    }

    fn on_micro_batch(&mut self) -> Next {
        self.n_micro_batches += 1;
        match self.stop_before {
            Some((index, next)) if index + 1 == self.n_micro_batches => next,
            _ => Next::Continue,
        }
    }

    fn on_step(&mut self, report: &StepReport) -> Next {
        self.steps.push(report.clone());
        match self.stop_after {
            Some((step, next)) if step == report.step => next,
            _ => Next::Continue,
        }
    }

    fn on_checkpoint(&mut self, checkpoint: &CheckpointReport<'_>) -> Next {
        self.checkpoints.push(checkpoint.step);
        Next::Continue
    }
}

/// A run over `rows` with nothing beside.
pub(crate) fn run_of<'a>(
    model: &'a CausalLm,
    config: &'a TrainingConfig,
    rows: &'a Rows,
    dir: &'a Path,
) -> Run<'a> {
    Run {
        model,
        base_fingerprint: "tiny",
        tuned_weights: None,
        config,
        train: rows,
        replay: None,
        valid: None,
        probe: None,
        initial: None,
        resume: None,
        checkpoint_dir: dir,
    }
}

/// Trains and returns what the observer saw as well.
pub(crate) fn watch(
    run: Run<'_>,
    mut recorder: Recorder,
) -> (Result<Trained, TrainError>, Recorder) {
    let trained = training::train(run, &mut recorder);
    (trained, recorder)
}

/// Trains on `rows` to the end, and returns what the observer saw as well.
pub(crate) fn train_on(
    model: &CausalLm,
    config: &TrainingConfig,
    rows: &Rows,
) -> (Trained, Recorder) {
    let dir = TempDir::new().unwrap();
    let (trained, seen) = watch(run_of(model, config, rows, dir.path()), Recorder::default());
    (trained.unwrap(), seen)
}

/// What was learned, bit for bit.
pub(crate) fn bits(trained: &Trained) -> Vec<u32> {
    trained
        .learned
        .named_tensors()
        .flat_map(|(_, tensor)| tensor.to_data().try_to_vec::<f32>().unwrap())
        .map(f32::to_bits)
        .collect()
}

//! What a run was, in one document: what went in, by its hashes; what came out; what it took, beside what was expected.
//!
//! Its keys are part of the interface: they are added to, and [`VERSION`] counts changes of what is there.

mod closing;
mod hashes;
mod warnings;

use std::collections::BTreeMap;

use domain::{JobData, TrainingConfig};
use serde::{Deserialize, Serialize};

use crate::estimate::Estimate;
use crate::eval::Evaluation;
use crate::observer::StepReport;
use crate::probe::Forgetting;
use crate::train::{Run, Trained};

pub use closing::{Remark, closing_remarks};
pub use hashes::Hashes;
pub use warnings::{data_warnings, overlap_warnings};

/// Of the document's layout.
pub const VERSION: u32 = 1;
/// The document's name, wherever it is kept.
pub const FILE_NAME: &str = "report.json";

/// The program that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// As it was released.
    pub version: String,
    /// The git commit it was built from, or `unknown`.
    pub commit: String,
}

/// Everything that is known of a run when it is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The program.
    pub code: Code,
    /// What the run was a function of.
    pub hashes: Hashes,
    /// Every setting, decided.
    pub config: TrainingConfig,
    /// Rows, tokens, cut and skipped rows of each file.
    pub data: JobData,
    /// Steps made, those before a resume included.
    pub steps: u64,
    /// The step whose state became the model.
    pub chosen_step: u64,
    /// Whether the validation loss did not fall any more.
    pub stopped_early: bool,
    /// Tokens of all steps, prompts included.
    pub train_tokens: u64,
    /// Supervised tokens of all steps.
    pub loss_tokens: u64,
    /// Every step.
    pub curve: Vec<Point>,
    /// What the model makes of the validation file.
    pub valid: Option<Evaluation>,
    /// What it forgot.
    pub forgetting: Option<Forgetting>,
    /// What the run took since it was last resumed.
    pub outcome: Outcome,
    /// What it was expected to take from there.
    pub estimate: Estimate,
    /// What its owner should know.
    pub warnings: Vec<String>,
}

/// One step of the loss curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Counted from 1.
    pub step: u64,
    /// Before the update.
    pub train_loss: f32,
    /// After it, at steps that were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// Of the update.
    pub learning_rate: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// All tokens of the step.
    pub n_tokens: u64,
    /// Its supervised ones.
    pub n_loss_tokens: u64,
    /// Since the step before.
    pub step_ms: f64,
}

/// What a run took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The first of the steps that these numbers are of.
    pub first_step: u64,
    /// From the first measurement to the last.
    pub seconds: f64,
    /// From the first step to the last, with what is measured and written between them.
    pub step_seconds: f64,
    /// Of which each kind of work took this much; the rest is measuring, data and bookkeeping.
    pub seconds_by_part: BTreeMap<String, f64>,
    /// Operations of the steps, by kind of work.
    pub flops_by_part: BTreeMap<String, f64>,
    /// All of them.
    pub flops: f64,
    /// Over the steps' time.
    pub flops_per_second: f64,
    /// Over each kind's own time.
    pub flops_per_second_by_part: BTreeMap<String, f64>,
    /// The most memory that the process held; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
}

/// A report whose run is not over.
#[derive(Debug, Clone)]
pub struct Draft {
    code: Code,
    hashes: Hashes,
    config: TrainingConfig,
    data: JobData,
    estimate: Estimate,
    warnings: Vec<String>,
}

impl Draft {
    /// What is known of `run` before it starts.
    pub fn new(run: &Run<'_>, code: Code, estimate: Estimate) -> Self {
        Self {
            code,
            hashes: Hashes::of(run),
            config: run.config.clone(),
            data: JobData {
                training_file: run.train.report.clone(),
                validation_file: run.valid.map(|rows| rows.report.clone()),
                replay_file: run.replay.map(|rows| rows.report.clone()),
            },
            estimate,
            warnings: warnings::of(run),
        }
    }

    /// The report of the run that became `trained`. `curve` has a point for every step; `peak_memory_bytes` is of the
    /// process that ran it.
    pub fn finish(
        self,
        trained: &Trained,
        curve: Vec<Point>,
        peak_memory_bytes: Option<u64>,
    ) -> Report {
        let forgotten = trained.forgetting.as_ref().and_then(Forgetting::warning);
        Report {
            version: VERSION,
            code: self.code,
            hashes: self.hashes,
            config: self.config,
            data: self.data,
            steps: trained.steps,
            chosen_step: trained.chosen_step,
            stopped_early: trained.stopped_early,
            train_tokens: trained.train_tokens,
            loss_tokens: trained.loss_tokens,
            curve,
            valid: trained.valid,
            forgetting: trained.forgetting,
            outcome: Outcome::of(trained, peak_memory_bytes),
            estimate: self.estimate,
            warnings: self.warnings.into_iter().chain(forgotten).collect(),
        }
    }
}

impl Report {
    /// As it is written.
    ///
    /// # Errors
    /// When a number is none: JSON has no word for it.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Outcome {
    fn of(trained: &Trained, peak_memory_bytes: Option<u64>) -> Self {
        let seconds_by_part: BTreeMap<String, f64> = trained
            .profile
            .parts()
            .map(|(part, time)| (part.name().to_owned(), time.as_secs_f64()))
            .collect();
        let parts = trained.flops.parts();
        let rates = parts.iter().filter_map(|(name, flops)| {
            let seconds = seconds_by_part
                .get(*name)
                .filter(|seconds| **seconds > 0.0)?;
            Some(((*name).to_owned(), flops / seconds))
        });
        let step_seconds = trained.stepping.as_secs_f64();
        Self {
            first_step: trained.first_step + 1,
            seconds: trained.wall.as_secs_f64(),
            step_seconds,
            flops_by_part: parts.map(|(name, flops)| (name.to_owned(), flops)).into(),
            flops: trained.flops.total(),
            flops_per_second: trained.flops.total() / step_seconds.max(1e-9),
            flops_per_second_by_part: rates.collect(),
            seconds_by_part,
            peak_memory_bytes,
        }
    }
}

impl From<&StepReport> for Point {
    fn from(step: &StepReport) -> Self {
        Self {
            step: step.step,
            train_loss: step.train_loss,
            valid_loss: step.valid.map(|valid| valid.loss),
            learning_rate: step.learning_rate,
            grad_norm: step.grad_norm,
            n_tokens: step.n_tokens,
            n_loss_tokens: step.n_loss_tokens,
            step_ms: step.step_ms,
        }
    }
}

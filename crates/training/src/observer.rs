//! How a run is watched and stopped.

use std::ops::ControlFlow;
use std::path::Path;

use serde::{Serialize, Serializer};

use crate::eval::Evaluation;

/// One finished step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Counted from 1.
    pub step: u64,
    /// Steps of the whole run.
    #[serde(skip)]
    pub total_steps: u64,
    /// Mean cross-entropy over the step's supervised tokens, before the update.
    pub train_loss: f32,
    /// Share of the step's supervised tokens that the model would have said itself.
    #[serde(skip)]
    pub train_accuracy: f64,
    /// The rate of this update.
    pub learning_rate: f64,
    /// Global L2 norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Supervised tokens.
    pub n_loss_tokens: u64,
    /// All tokens, prompts included.
    pub n_tokens: u64,
    /// Wall time since the step before, data included.
    pub step_ms: f64,
    /// The validation file, at steps that end with a checkpoint.
    #[serde(
        rename = "valid_loss",
        serialize_with = "loss_of",
        skip_serializing_if = "Option::is_none"
    )]
    pub valid: Option<Evaluation>,
}

#[expect(clippy::ref_option, reason = "as serde calls it")]
fn loss_of<S: Serializer>(valid: &Option<Evaluation>, to: S) -> Result<S::Ok, S::Error> {
    valid.map(|valid| valid.loss).serialize(to)
}

/// A checkpoint that is whole and on disk.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointReport<'a> {
    /// Steps that went into it.
    pub step: u64,
    /// Where it is.
    pub dir: &'a Path,
    /// The step it was taken after.
    pub report: &'a StepReport,
}

/// What the run does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Goes on.
    Continue,
    /// Writes a checkpoint, then ends: a pause, or a worker that is asked to leave.
    SaveAndStop,
    /// Ends at once and writes nothing: cancelled, or the lease is lost.
    Abandon,
}

/// Watches a run. Calls come from the training thread, between micro-batches and between steps.
pub trait Observer {
    /// The validation file before the first step: what the base model (or the adapter one starts from) makes of it.
    fn on_start(&mut self, valid: Option<Evaluation>);

    /// A step is about to compute its next micro-batch, or a measurement its next rows. Whoever does not go on loses what
    /// the step or the measurement has computed so far: a checkpoint is of the last step that was made.
    fn on_micro_batch(&mut self) -> Next {
        Next::Continue
    }

    /// A step is done.
    fn on_step(&mut self, report: &StepReport) -> Next;

    /// A checkpoint is written. The directory stays until the next one is.
    fn on_checkpoint(&mut self, checkpoint: &CheckpointReport<'_>) -> Next;
}

impl Next {
    /// Whether to go on, or what to do instead.
    pub(crate) fn flow(self) -> ControlFlow<Self> {
        match self {
            Self::Continue => ControlFlow::Continue(()),
            wish => ControlFlow::Break(wish),
        }
    }

    /// The stronger of two wishes.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Abandon, _) | (_, Self::Abandon) => Self::Abandon,
            (Self::SaveAndStop, _) | (_, Self::SaveAndStop) => Self::SaveAndStop,
            _ => Self::Continue,
        }
    }
}

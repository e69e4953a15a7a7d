//! The loop.

mod gradients;
mod state;
mod trial;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use domain::TrainingConfig;
use domain::cost::Flops;
use lm::profile::Profile;
use lm::{Adapter, CausalLm, Learned};

use crate::batch::Plan;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::estimate::Misfit;
use crate::eval::Evaluation;
use crate::objective::{Policy, Reference};
use crate::observer::{Next, Observer, StepReport};
use crate::probe::{Forgetting, Probe};
use crate::rows::Rows;

use state::{State, Stepped};
pub(crate) use trial::Trial;

/// Everything a run is made of.
pub struct Run<'a> {
    /// The base model, or one whose weights were tuned before. It does not change.
    pub model: &'a CausalLm,
    /// Fingerprint of the base model's files.
    pub base_fingerprint: &'a str,
    /// SHA-256 of the tuned weights that stand in `model` in the place of the base's own, if some do.
    pub tuned_weights: Option<&'a str>,
    /// Every setting.
    pub config: &'a TrainingConfig,
    /// The rows to learn from.
    pub train: &'a Rows,
    /// The rows to mix in, where the settings ask for it.
    pub replay: Option<&'a Rows>,
    /// The rows to measure on.
    pub valid: Option<&'a Rows>,
    /// The text to measure forgetting on.
    pub probe: Option<&'a Probe>,
    /// The adapter to start from, with a new optimizer; a new one if there is none. With the base it is what the methods
    /// that compare compare with, so a run that is resumed is given it too.
    pub initial: Option<Adapter>,
    /// A checkpoint of this same run, to go on from.
    pub resume: Option<Box<Checkpoint>>,
    /// Where checkpoints go.
    pub checkpoint_dir: &'a Path,
}

impl Run<'_> {
    /// The order of its rows.
    pub(crate) fn plan(&self) -> Plan {
        let n_replay_rows = self.replay.map_or(0, Rows::len);
        Plan::new(self.config, self.train.len(), n_replay_rows)
    }

    /// What the methods that compare compare with.
    pub(crate) fn reference(&self) -> Reference<'_> {
        Reference {
            model: self.model,
            adapter: self.initial.as_ref(),
        }
    }

    /// The model with what it has `learned`, without a graph.
    pub(crate) fn policy<'b>(&'b self, learned: &'b Learned) -> Policy<'b> {
        let (model, adapter) = learned.on(self.model);
        Policy {
            model,
            adapter,
            reference: self.reference(),
        }
    }
}

/// What a run leaves behind.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The state that the settings chose: the last, or the best on the validation file.
    pub learned: Learned,
    /// Steps that went into it.
    pub chosen_step: u64,
    /// Steps made, resumed ones included.
    pub steps: u64,
    /// Whether the run is over: all steps were made, or more would not have helped. If not, the observer stopped it.
    pub finished: bool,
    /// Whether the run ended before its last step because the validation loss did not fall any more.
    pub stopped_early: bool,
    /// Tokens of all steps, prompts included.
    pub train_tokens: u64,
    /// Supervised tokens of all steps.
    pub loss_tokens: u64,
    /// What the chosen state makes of the validation rows.
    pub valid: Option<Evaluation>,
    /// What the model forgot.
    pub forgetting: Option<Forgetting>,
    /// The first steps, which were made before this run was resumed.
    pub first_step: u64,
    /// Where the time of the steps made here went.
    pub profile: Profile,
    /// The operations of the steps made here.
    pub flops: Flops,
    /// What the steps made here took, measurements and checkpoints between them included.
    pub stepping: Duration,
    /// What everything here took.
    pub wall: Duration,
}

/// Why a run ended without a model.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The run would need more memory than there is. Said by [`crate::estimate()`], before anything is computed.
    #[error("{0}")]
    DoesNotFit(Box<Misfit>),
    /// A loss or a gradient is not a number any more. Nothing of that step was saved.
    #[error(
        "the {what} of step {step} is not finite ({}); lower `learning_rate` or look at those rows",
        named(lines, replay_lines)
    )]
    NonFinite {
        /// `loss` or `gradient`.
        what: &'static str,
        /// Counted from 1.
        step: u64,
        /// The lines of the step's rows in the training file.
        lines: Vec<u64>,
        /// And in the replay file.
        replay_lines: Vec<u64>,
    },
    /// The checkpoint to resume from is another run's.
    #[error("cannot resume")]
    Resume(#[source] CheckpointError),
    /// A checkpoint could not be written.
    #[error("cannot write the checkpoint of step {step}")]
    Checkpoint {
        /// Steps that would have gone into it.
        step: u64,
        /// Why.
        source: CheckpointError,
    },
    /// Rows that were written to disk cannot be read back.
    #[error("cannot read the rows' tokens back")]
    Rows(#[from] std::io::Error),
}

/// Runs until all steps are made, more would not help, or the observer stops it.
///
/// # Errors
/// See [`TrainError`]. Checkpoints that were written before stay whole.
pub fn train(run: Run<'_>, observer: &mut dyn Observer) -> Result<Trained, TrainError> {
    let started = Instant::now();
    let mut state = State::new(run)?;
    let mut next = state.look(observer)?;
    if next == Next::Continue {
        observer.on_start(state.valid());
    }
    let first = Instant::now();
    let mut last = first;
    // The last step, while no checkpoint holds it.
    let mut unsaved: Option<StepReport> = None;
    while next == Next::Continue && !state.is_over() {
        let mut report = match state.step(observer)? {
            Stepped::Done(report) => report,
            Stepped::Interrupted(wish) => {
                if let (Next::SaveAndStop, Some(report)) = (wish, &unsaved) {
                    state.save(report, observer)?;
                }
                break;
            }
        };
        let checkpoint_due = state.checkpoint_due();
        if checkpoint_due {
            match state.measure(observer)? {
                ControlFlow::Continue(valid) => report.valid = valid,
                ControlFlow::Break(wish) => next = wish,
            }
        }
        report.step_ms = last.elapsed().as_secs_f64() * 1000.0;
        last = Instant::now();
        next = next.and(observer.on_step(&report));
        if next == Next::SaveAndStop || (checkpoint_due && next == Next::Continue) {
            next = next.and(state.save(&report, observer)?);
            unsaved = None;
        } else {
            unsaved = Some(report);
        }
    }
    let stepping = first.elapsed();
    let trained = state.finish(observer);
    Ok(Trained {
        stepping,
        wall: started.elapsed(),
        ..trained
    })
}

/// The rows of a step, as an error says where they stand.
fn named(lines: &[u64], replay_lines: &[u64]) -> String {
    match replay_lines {
        [] => format!("rows at lines {lines:?} of the training file"),
        _ => format!(
            "rows at lines {lines:?} of the training file and {replay_lines:?} of the replay file"
        ),
    }
}

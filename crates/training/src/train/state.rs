//! What a run is between two steps.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use domain::TrainingConfig;
use domain::config::Tuning;
use domain::cost::{CostModel, Flops};
use lm::lora::Dropout;
use lm::profile::{self, Part, measure};
use lm::{Activations, Adapter, Learned};

use super::gradients::{StepContext, Sums};
use super::{Run, TrainError, Trained};
use crate::adamw::{self, AdamW};
use crate::batch::{MicroBatch, Pick, Plan};
use crate::checkpoint::{self, Checkpoint, CheckpointError, Identity};
use crate::eval::{self, Evaluation};
use crate::objective::{self, Objective, Policy};
use crate::observer::{CheckpointReport, Next, Observer, StepReport};
use crate::probe::Forgetting;
use crate::random;
use crate::rows::Sample;
use crate::schedule::Schedule;
use crate::selection::Selection;
use crate::settings;
use crate::sizes::Sizes;

/// Checkpoints that stay on the local disk.
const CHECKPOINTS_KEPT: usize = 2;

pub(super) struct State<'a> {
    run: Run<'a>,
    objective: Box<dyn Objective>,
    plan: Plan,
    schedule: Schedule,
    identity: Identity,
    learned: Learned,
    optimizer: AdamW,
    selection: Selection<Learned>,
    /// What the current state makes of the validation rows, as of the last measurement.
    valid: Option<Evaluation>,
    perplexity_before: Option<f64>,
    /// Whether a measurement was not made to its end. What the model is like is not known then, so the run is not over.
    interrupted: bool,
    /// Steps that were made before this run of it.
    first_step: u64,
}

/// How a step ended.
pub(super) enum Stepped {
    /// With an update.
    Done(StepReport),
    /// Before one.
    Interrupted(Next),
}

impl<'a> State<'a> {
    pub(super) fn new(mut run: Run<'a>) -> Result<Self, TrainError> {
        let config = run.config;
        let identity = Identity::of(&run);
        let resume = run.resume.take();
        let (learned, optimizer, selection) = begin(resume, &run, &identity)?;
        let plan = run.plan();
        let schedule = Schedule::new(config, plan.total_steps());
        let first_step = optimizer.step;
        Ok(Self {
            objective: objective::of(config),
            plan,
            schedule,
            identity,
            learned,
            optimizer,
            selection,
            valid: None,
            perplexity_before: None,
            interrupted: false,
            first_step,
            run,
        })
    }

    /// Looks at the validation rows and the general text before the first step.
    pub(super) fn look(&mut self, observer: &mut dyn Observer) -> Result<Next, TrainError> {
        let looked = self.look_at_all(observer)?;
        // What came before the first step is not the steps'.
        let _ = profile::take();
        Ok(match looked {
            ControlFlow::Continue(()) => Next::Continue,
            ControlFlow::Break(wish) => {
                self.interrupted = true;
                wish
            }
        })
    }

    fn look_at_all(&mut self, observer: &mut dyn Observer) -> io::Result<ControlFlow<Next>> {
        match self.perplexity(&self.before(), observer) {
            ControlFlow::Continue(perplexity) => self.perplexity_before = perplexity,
            ControlFlow::Break(wish) => return Ok(ControlFlow::Break(wish)),
        }
        match self.evaluate(observer)? {
            ControlFlow::Continue(valid) => self.valid = valid,
            ControlFlow::Break(wish) => return Ok(ControlFlow::Break(wish)),
        }
        if self.selection.progress().owes {
            self.select();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What the adapter made of the validation rows when they were last looked at.
    pub(super) fn valid(&self) -> Option<Evaluation> {
        self.valid
    }

    pub(super) fn is_over(&self) -> bool {
        self.optimizer.step >= self.plan.total_steps() || self.selection.is_over()
    }

    /// One update: gradients of every micro-batch, normalised by the units of all of them together. One that the
    /// observer interrupts changes nothing.
    pub(super) fn step(&mut self, observer: &mut dyn Observer) -> Result<Stepped, TrainError> {
        let step = self.optimizer.step;
        let picks = self.plan.micro_batches(step);
        let samples = picks.iter().map(|picks| read(&self.run, picks));
        let samples: Vec<Vec<Sample>> = samples.collect::<io::Result<_>>()?;
        let batches: Vec<MicroBatch> = samples.iter().map(|rows| MicroBatch::of(rows)).collect();
        let n_units: usize = batches.iter().map(|b| self.objective.n_units(b)).sum();
        let context = StepContext {
            objective: self.objective.as_ref(),
            model: self.run.model,
            learned: &self.learned,
            reference: self.run.reference(),
            activations: activations(self.run.config),
            baseline: self
                .objective
                .baseline(&self.run.policy(&self.learned), &samples.concat()),
            n_units,
        };
        let mut sums = Sums::default();
        for (index, batch) in batches.iter().enumerate() {
            let next = observer.on_micro_batch();
            if next != Next::Continue {
                return Ok(Stepped::Interrupted(next));
            }
            sums.add(
                &context,
                batch,
                dropout(self.run.config, step, index).as_ref(),
            );
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the loss is reported as the f32 it was computed in"
        )]
        let train_loss = sums.loss as f32;
        let grad_norm = adamw::global_norm(&sums.gradients);
        self.check_finite(step, "loss", train_loss.into(), &picks)?;
        self.check_finite(step, "gradient", grad_norm, &picks)?;

        let learning_rate = self.schedule.learning_rate(step);
        let gradients = adamw::clip(sums.gradients, grad_norm, self.run.config.max_grad_norm);
        self.learned = measure(Part::Optimizer, || {
            let learned = self.learned.clone();
            self.optimizer.update(learned, gradients, learning_rate)
        });
        let count = |of: fn(&MicroBatch) -> usize| batches.iter().map(of).sum::<usize>() as u64;
        Ok(Stepped::Done(StepReport {
            step: step + 1,
            total_steps: self.plan.total_steps(),
            train_loss,
            train_accuracy: ratio(sums.n_correct, n_units as u64),
            learning_rate,
            grad_norm,
            n_loss_tokens: count(MicroBatch::n_loss_tokens),
            n_tokens: count(MicroBatch::n_tokens),
            step_ms: 0.0,
            valid: None,
        }))
    }

    /// What the run started from.
    fn before(&self) -> Policy<'_> {
        let reference = self.run.reference();
        Policy {
            model: reference.model.clone(),
            adapter: reference.adapter,
            reference,
        }
    }

    fn check_finite(
        &self,
        step: u64,
        what: &'static str,
        value: f64,
        picks: &[Vec<Pick>],
    ) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        let (mut lines, mut replay_lines) = (Vec::new(), Vec::new());
        for pick in picks.iter().flatten() {
            match (pick, self.run.replay) {
                (Pick::Train(row), _) => lines.push(self.run.train.line(*row)),
                (Pick::Replay(row), Some(rows)) => replay_lines.push(rows.line(*row)),
                (Pick::Replay(_), None) => {}
            }
        }
        Err(TrainError::NonFinite {
            what,
            step: step + 1,
            lines,
            replay_lines,
        })
    }

    pub(super) fn checkpoint_due(&self) -> bool {
        let step = self.optimizer.step;
        step.is_multiple_of(self.run.config.checkpoint_every) || step == self.plan.total_steps()
    }

    /// Looks at the validation rows, and whether the state is the best so far.
    pub(super) fn measure(
        &mut self,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<Next, Option<Evaluation>>, TrainError> {
        let measured = self.evaluate(observer)?;
        match measured {
            ControlFlow::Continue(valid) => {
                self.valid = valid;
                self.select();
            }
            ControlFlow::Break(_) => {
                self.valid = None;
                self.interrupted = true;
                self.selection.interrupted();
            }
        }
        Ok(measured)
    }

    fn select(&mut self) {
        if let Some(valid) = self.valid {
            self.selection
                .measured(self.optimizer.step, valid, &self.learned);
        }
    }

    fn evaluate(
        &self,
        observer: &mut dyn Observer,
    ) -> io::Result<ControlFlow<Next, Option<Evaluation>>> {
        let Some(rows) = self.run.valid else {
            return Ok(ControlFlow::Continue(None));
        };
        let policy = self.run.policy(&self.learned);
        eval::evaluate(self.objective.as_ref(), &policy, rows, observer)
    }

    pub(super) fn save(
        &self,
        report: &StepReport,
        observer: &mut dyn Observer,
    ) -> Result<Next, TrainError> {
        let step = self.optimizer.step;
        let root = self.run.checkpoint_dir;
        let (learned, optimizer) = (&self.learned, &self.optimizer);
        let dir = checkpoint::save(root, learned, optimizer, &self.selection, &self.identity)
            .map_err(|source| TrainError::Checkpoint { step, source })?;
        let next = observer.on_checkpoint(&CheckpointReport {
            step,
            dir: &dir,
            report,
        });
        checkpoint::prune(root, CHECKPOINTS_KEPT);
        Ok(next)
    }

    pub(super) fn finish(mut self, observer: &mut dyn Observer) -> Trained {
        let profile = profile::take();
        let steps = self.optimizer.step;
        let (train_tokens, loss_tokens, flops) = self.work_of(steps);
        let is_over = self.is_over() && !self.interrupted;
        let last = (steps, self.valid, &self.learned);
        let (chosen_step, valid, learned) = match self.selection.best() {
            Some((step, valid, learned)) if is_over => (step, Some(valid), learned),
            _ => last,
        };
        let learned = learned.clone();
        let forgetting = if is_over {
            self.forgetting(&learned, observer)
        } else {
            ControlFlow::Continue(None)
        };
        Trained {
            learned,
            chosen_step,
            steps,
            finished: is_over && forgetting.is_continue(),
            stopped_early: steps < self.plan.total_steps() && self.selection.is_over(),
            train_tokens,
            loss_tokens,
            flops,
            valid,
            forgetting: forgetting.continue_value().flatten(),
            first_step: self.first_step,
            profile,
            wall: Duration::ZERO,
            stepping: Duration::ZERO,
        }
    }

    /// All tokens and the supervised ones of the first `steps` steps, and the work of those of them that were made here.
    fn work_of(&mut self, steps: u64) -> (u64, u64, Flops) {
        let shape = settings::model_shape(self.run.model.config());
        let (sizes, cost) = (
            Sizes::of(&self.run),
            CostModel::new(&shape, self.run.config),
        );
        let (mut train_tokens, mut loss_tokens) = (0, 0);
        let mut flops = Flops::default();
        for step in 0..steps {
            for picks in self.plan.micro_batches(step) {
                let batch = sizes.batch(&picks);
                train_tokens += batch.n_tokens();
                loss_tokens += batch.n_supervised;
                if step >= self.first_step {
                    flops += cost.micro_batch(&batch);
                }
            }
        }
        (train_tokens, loss_tokens, flops)
    }

    fn perplexity(
        &self,
        policy: &Policy<'_>,
        observer: &mut dyn Observer,
    ) -> ControlFlow<Next, Option<f64>> {
        match (self.run.config.care.max_perplexity_increase, self.run.probe) {
            (Some(_), Some(probe)) => probe.perplexity(policy, observer),
            _ => ControlFlow::Continue(None),
        }
    }

    fn forgetting(
        &self,
        learned: &Learned,
        observer: &mut dyn Observer,
    ) -> ControlFlow<Next, Option<Forgetting>> {
        let policy = self.run.policy(learned);
        let after = self.perplexity(&policy, observer)?;
        let max_increase = self.run.config.care.max_perplexity_increase;
        let found = self.perplexity_before.zip(after).zip(max_increase);
        let forgetting =
            found.map(
                |((perplexity_before, perplexity_after), max_increase)| Forgetting {
                    perplexity_before,
                    perplexity_after,
                    max_increase,
                },
            );
        ControlFlow::Continue(forgetting)
    }
}

fn begin(
    resume: Option<Box<Checkpoint>>,
    run: &Run<'_>,
    identity: &Identity,
) -> Result<(Learned, AdamW, Selection<Learned>), TrainError> {
    let (config, care) = (run.config, &run.config.care);
    let Some(checkpoint) = resume else {
        let learned = first(run);
        let optimizer = AdamW::new(config, &learned);
        return Ok((learned, optimizer, Selection::new(care)));
    };
    if let Some(what) = identity.difference(&checkpoint.identity) {
        let path = format!("the checkpoint of step {}", checkpoint.step);
        return Err(TrainError::Resume(CheckpointError::OtherRun { path, what }));
    }
    let optimizer = AdamW::resume(config, checkpoint.step, checkpoint.moments);
    let selection = Selection::resume(care, checkpoint.selection, checkpoint.best);
    Ok((checkpoint.learned, optimizer, selection))
}

/// The rows of a micro-batch.
pub(super) fn read(run: &Run<'_>, picks: &[Pick]) -> io::Result<Vec<Sample>> {
    let read = |pick: &Pick| match (pick, run.replay) {
        (Pick::Train(row), _) => run.train.get(*row),
        (Pick::Replay(row), Some(rows)) => rows.get(*row),
        (Pick::Replay(_), None) => Err(io::Error::other("no replay file was given")),
    };
    picks.iter().map(read).collect()
}

pub(super) fn activations(config: &TrainingConfig) -> Activations {
    if config.recompute {
        Activations::Recomputed
    } else {
        Activations::Kept
    }
}

pub(super) fn dropout(config: &TrainingConfig, step: u64, micro_batch: usize) -> Option<Dropout> {
    let rate = config.lora()?.dropout;
    let key = random::key(&[config.seed, step, micro_batch as u64]);
    (rate > 0.0).then_some(Dropout { rate, key })
}

/// What learns, before the first step.
pub(super) fn first(run: &Run<'_>) -> Learned {
    let (model, config) = (run.model, run.config);
    match &config.tuning {
        Tuning::Full { train_embeddings } => Learned::Full(model.trainable(*train_embeddings)),
        Tuning::Lora(lora) => Learned::Adapter(
            run.initial
                .clone()
                .unwrap_or_else(|| Adapter::init(&settings::lora_config(lora), model, config.seed)),
        ),
    }
}

#[expect(clippy::cast_precision_loss, reason = "token counts stay below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

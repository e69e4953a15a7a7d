//! The loop.

use std::path::Path;
use std::time::Instant;

use burn::tensor::Tensor;
use domain::TrainingConfig;
use domain::config::{Precision, TargetModule};
use lm::lora::{Dropout, LoraConfig, Target};
use lm::profile::{self, Part, Profile, measure};
use lm::{Adapter, CausalLm};

use crate::adamw::{self, AdamW};
use crate::batch::{MicroBatch, Plan};
use crate::checkpoint::{self, Checkpoint, CheckpointError, Identity};
use crate::eval::{self, Evaluation};
use crate::objective;
use crate::observer::{CheckpointReport, Next, Observer, StepReport};
use crate::prepare::Rows;
use crate::random;
use crate::schedule::Schedule;

/// Checkpoints that stay on the local disk.
const CHECKPOINTS_KEPT: usize = 2;

/// Everything a run is made of.
pub struct Run<'a> {
    /// The base model. It does not change.
    pub model: &'a CausalLm,
    /// Fingerprint of the base model's files.
    pub base_fingerprint: &'a str,
    /// Every setting.
    pub config: &'a TrainingConfig,
    /// The rows to learn from.
    pub train: &'a Rows,
    /// The rows to measure on.
    pub valid: Option<&'a Rows>,
    /// Where to begin.
    pub start: Start,
    /// Where checkpoints go.
    pub checkpoint_dir: &'a Path,
}

/// Where a run begins.
#[derive(Debug, Clone)]
pub enum Start {
    /// At a new adapter that changes nothing yet.
    Fresh,
    /// At an adapter that was trained before, with a new optimizer.
    From(Adapter),
    /// At a checkpoint of this same run.
    Resume(Box<Checkpoint>),
}

/// What a run leaves behind.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The adapter after the last step.
    pub adapter: Adapter,
    /// Steps that went into it, resumed ones included.
    pub steps: u64,
    /// Whether all steps were made. If not, the observer stopped the run.
    pub finished: bool,
    /// Tokens of all steps, prompts included.
    pub train_tokens: u64,
    /// Supervised tokens of all steps.
    pub loss_tokens: u64,
    /// The validation rows after the last step.
    pub valid: Option<Evaluation>,
    /// Where the time of the steps made here went.
    pub profile: Profile,
}

/// Why a run ended without its adapter.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A loss or a gradient is not a number any more. Nothing of that step was saved.
    #[error(
        "the {what} of step {step} is not finite (rows at lines {lines:?} of the training file); \
         lower `learning_rate` or look at those rows"
    )]
    NonFinite {
        /// `loss` or `gradient`.
        what: &'static str,
        /// Counted from 1.
        step: u64,
        /// The lines of the step's rows.
        lines: Vec<u64>,
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
}

/// Runs until all steps are made or the observer stops it.
///
/// # Errors
/// See [`TrainError`]. Checkpoints that were written before stay whole.
pub fn train(run: Run<'_>, observer: &mut dyn Observer) -> Result<Trained, TrainError> {
    let mut state = State::new(run)?;
    observer.on_start(state.valid);
    let mut last = Instant::now();
    let mut next = Next::Continue;
    while next == Next::Continue && state.optimizer.step < state.plan.total_steps() {
        let mut report = state.step()?;
        let checkpoint_due = state.checkpoint_due();
        if checkpoint_due {
            report.valid = state.evaluate();
        }
        report.step_ms = last.elapsed().as_secs_f64() * 1000.0;
        last = Instant::now();
        next = observer.on_step(&report);
        if next == Next::SaveAndStop || (checkpoint_due && next == Next::Continue) {
            next = next.and(state.save(&report, observer)?);
        }
    }
    Ok(state.finish())
}

struct State<'a> {
    run: Run<'a>,
    /// The base on the device that records a graph. It shares the weights of `run.model`.
    graph_model: CausalLm,
    plan: Plan,
    schedule: Schedule,
    identity: Identity,
    adapter: Adapter,
    optimizer: AdamW,
    valid: Option<Evaluation>,
}

impl<'a> State<'a> {
    fn new(mut run: Run<'a>) -> Result<Self, TrainError> {
        let (model, config) = (run.model, run.config);
        let identity = Identity {
            config: config.clone(),
            base: run.base_fingerprint.to_owned(),
            data: run.train.report.fingerprint.clone(),
            kernels: model.kernels(),
        };
        let start = std::mem::replace(&mut run.start, Start::Fresh);
        let (adapter, optimizer) = begin(start, model, config, &identity)?;
        let plan = Plan::new(config, run.train.examples.len());
        let schedule = Schedule::new(config, plan.total_steps());
        let graph_model = model.autodiff();
        let mut state = Self {
            graph_model,
            plan,
            schedule,
            identity,
            adapter,
            optimizer,
            valid: None,
            run,
        };
        state.evaluate();
        // What came before the first step is not the steps'.
        let _ = profile::take();
        Ok(state)
    }

    /// One update: gradients of every micro-batch, normalised by the supervised tokens of all of them together.
    fn step(&mut self) -> Result<StepReport, TrainError> {
        let step = self.optimizer.step;
        let micro_batches = self.plan.micro_batches(step);
        let batches: Vec<MicroBatch> = micro_batches
            .iter()
            .map(|rows| self.micro_batch(rows))
            .collect();
        let n_loss_tokens: usize = batches.iter().map(MicroBatch::n_loss_tokens).sum();
        let n_tokens: usize = batches.iter().map(MicroBatch::n_tokens).sum();

        let mut sums = Sums::default();
        for (index, batch) in batches.iter().enumerate() {
            let dropout = self.dropout(step, index);
            sums.add(
                &self.graph_model,
                &self.adapter,
                batch,
                n_loss_tokens,
                dropout.as_ref(),
            );
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the loss is reported as the f32 it was computed in"
        )]
        let train_loss = sums.loss as f32;
        let grad_norm = adamw::global_norm(&sums.gradients);
        self.check_finite(step, "loss", train_loss.into(), &micro_batches)?;
        self.check_finite(step, "gradient", grad_norm, &micro_batches)?;

        let learning_rate = self.schedule.learning_rate(step);
        let gradients = adamw::clip(sums.gradients, grad_norm, self.run.config.max_grad_norm);
        self.adapter = measure(Part::Optimizer, || {
            let adapter = self.adapter.clone();
            self.optimizer.update(adapter, gradients, learning_rate)
        });
        Ok(StepReport {
            step: step + 1,
            total_steps: self.plan.total_steps(),
            train_loss,
            train_accuracy: ratio(sums.n_correct, n_loss_tokens as u64),
            learning_rate,
            grad_norm,
            n_loss_tokens: n_loss_tokens as u64,
            n_tokens: n_tokens as u64,
            step_ms: 0.0,
            valid: None,
        })
    }

    fn micro_batch(&self, rows: &[usize]) -> MicroBatch {
        MicroBatch::new(rows.iter().map(|row| &self.run.train.examples[*row]))
    }

    fn dropout(&self, step: u64, micro_batch: usize) -> Option<Dropout> {
        let rate = self.run.config.lora.dropout;
        let key = random::key(&[self.run.config.seed, step, micro_batch as u64]);
        (rate > 0.0).then_some(Dropout { rate, key })
    }

    fn check_finite(
        &self,
        step: u64,
        what: &'static str,
        value: f64,
        micro_batches: &[Vec<usize>],
    ) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        let lines = micro_batches
            .iter()
            .flatten()
            .map(|row| self.run.train.lines[*row])
            .collect();
        Err(TrainError::NonFinite {
            what,
            step: step + 1,
            lines,
        })
    }

    fn checkpoint_due(&self) -> bool {
        let step = self.optimizer.step;
        step.is_multiple_of(self.run.config.checkpoint_every) || step == self.plan.total_steps()
    }

    fn evaluate(&mut self) -> Option<Evaluation> {
        let rows = self.run.valid?;
        self.valid = eval::evaluate(self.run.model, Some(&self.adapter), &rows.examples);
        self.valid
    }

    fn save(&self, report: &StepReport, observer: &mut dyn Observer) -> Result<Next, TrainError> {
        let step = self.optimizer.step;
        let root = self.run.checkpoint_dir;
        let dir = checkpoint::save(root, &self.adapter, &self.optimizer, &self.identity)
            .map_err(|source| TrainError::Checkpoint { step, source })?;
        let next = observer.on_checkpoint(&CheckpointReport {
            step,
            dir: &dir,
            report,
        });
        checkpoint::prune(root, CHECKPOINTS_KEPT);
        Ok(next)
    }

    fn finish(self) -> Trained {
        let steps = self.optimizer.step;
        let (mut train_tokens, mut loss_tokens) = (0, 0);
        for step in 0..steps {
            for rows in self.plan.micro_batches(step) {
                let batch = self.micro_batch(&rows);
                train_tokens += batch.n_tokens() as u64;
                loss_tokens += batch.n_loss_tokens() as u64;
            }
        }
        Trained {
            adapter: self.adapter,
            steps,
            finished: steps == self.plan.total_steps(),
            train_tokens,
            loss_tokens,
            valid: self.valid,
            profile: profile::take(),
        }
    }
}

/// What the micro-batches of one step add up to.
#[derive(Default)]
struct Sums {
    loss: f64,
    n_correct: u64,
    /// In the order of [`Adapter::named_tensors`]; empty before the first micro-batch.
    gradients: Vec<Tensor<2>>,
}

impl Sums {
    fn add(
        &mut self,
        model: &CausalLm,
        adapter: &Adapter,
        batch: &MicroBatch,
        n_loss_tokens: usize,
        dropout: Option<&Dropout>,
    ) {
        let leaves = adapter.clone().require_grad();
        let hidden = model.hidden(&batch.input, Some(&leaves), dropout);
        let loss = objective::cross_entropy(model, hidden, batch);
        #[expect(clippy::cast_precision_loss, reason = "token counts stay below 2^52")]
        let loss_mean = loss.nll / n_loss_tokens as f64;
        self.loss += f64::from(loss_mean.clone().into_scalar::<f32>());
        self.n_correct += loss.n_correct;
        let graph = loss_mean.backward();
        let gradients = leaves
            .named_tensors()
            .zip(adapter.named_tensors())
            .map(|((_, leaf), (_, value))| leaf.grad(&graph).unwrap_or_else(|| value.zeros_like()));
        self.gradients = if self.gradients.is_empty() {
            gradients.collect()
        } else {
            std::mem::take(&mut self.gradients)
                .into_iter()
                .zip(gradients)
                .map(|(a, b)| a + b)
                .collect()
        };
    }
}

fn begin(
    start: Start,
    model: &CausalLm,
    config: &TrainingConfig,
    identity: &Identity,
) -> Result<(Adapter, AdamW), TrainError> {
    match start {
        Start::Fresh => {
            let lora = lora_config(&config.lora);
            let adapter = Adapter::init(&lora, model, config.seed);
            Ok((adapter.clone(), AdamW::new(config, &adapter)))
        }
        Start::From(adapter) => Ok((adapter.clone(), AdamW::new(config, &adapter))),
        Start::Resume(checkpoint) => {
            if let Some(what) = identity.difference(&checkpoint.identity) {
                let path = format!("the checkpoint of step {}", checkpoint.step);
                return Err(TrainError::Resume(CheckpointError::OtherRun { path, what }));
            }
            let optimizer = AdamW::resume(config, checkpoint.step, checkpoint.moments);
            Ok((checkpoint.adapter, optimizer))
        }
    }
}

/// Whether a run with the settings `lora` can go on from `adapter`.
pub fn fits(adapter: &Adapter, lora: &domain::config::LoraConfig) -> bool {
    let (found, wanted) = (adapter.config(), lora_config(lora));
    let scaling = |config: &LoraConfig| (config.rank, config.use_rslora, config.use_dora);
    scaling(found) == scaling(&wanted) && found.target_modules == wanted.target_modules
}

/// The settings' precision in the model's terms: what the base is to be loaded in.
pub fn base_precision(config: &TrainingConfig) -> lm::Precision {
    match config.precision {
        Precision::F32 => lm::Precision::F32,
        Precision::Bf16 => lm::Precision::Bf16,
    }
}

/// The settings' adapter in the model's terms.
pub fn lora_config(lora: &domain::config::LoraConfig) -> LoraConfig {
    let target = |module: &TargetModule| match module {
        TargetModule::QProj => Target::Q,
        TargetModule::KProj => Target::K,
        TargetModule::VProj => Target::V,
        TargetModule::OProj => Target::O,
        TargetModule::GateProj => Target::Gate,
        TargetModule::UpProj => Target::Up,
        TargetModule::DownProj => Target::Down,
    };
    LoraConfig {
        rank: lora.rank,
        alpha: lora.alpha,
        use_rslora: lora.use_rslora,
        use_dora: false,
        dropout: lora.dropout,
        target_modules: lora.target_modules.iter().map(target).collect(),
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

//! What can be counted of a run without computing any of it.

use domain::TrainingConfig;
use domain::config::Keep;
use domain::cost::{BatchShape, CostModel, Flops, Memory};

use crate::batch::Plan;
use crate::memory::Room;
use crate::sizes::Sizes;
use crate::train::Run;

/// Micro-batches among which the median is looked for.
const SAMPLED: usize = 4096;

/// A run's counts.
pub(super) struct Forecast {
    pub(super) steps: u64,
    pub(super) n_batches: u64,
    pub(super) train_tokens: u64,
    pub(super) loss_tokens: u64,
    pub(super) flops: Flops,
    pub(super) measuring_flops: Flops,
    /// Of all checkpoints together.
    pub(super) checkpoint_bytes: u64,
    /// The micro-batch that takes the most memory.
    pub(super) fullest: BatchShape,
    memory: Memory,
    /// By their operations.
    sampled: Vec<Sampled>,
}

/// A micro-batch that may be timed.
#[derive(Debug, Clone)]
pub(super) struct Sampled {
    pub(super) step: u64,
    pub(super) index: usize,
    pub(super) flops: f64,
    pub(super) measuring_flops: f64,
}

impl Forecast {
    pub(super) fn new(run: &Run<'_>, plan: &mut Plan, cost: &CostModel<'_>) -> Self {
        let first_step = run.resume.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let steps = first_step..plan.total_steps();
        let sizes = Sizes::of(run);
        let n_checkpoints = checkpoints(run.config, &steps);
        let mut forecast = Self {
            steps: steps.end.saturating_sub(steps.start),
            n_batches: 0,
            train_tokens: 0,
            loss_tokens: 0,
            flops: Flops::default(),
            measuring_flops: measuring(run, &sizes, cost, n_checkpoints),
            checkpoint_bytes: n_checkpoints * checkpoint_bytes(run, cost),
            fullest: BatchShape::default(),
            memory: Memory::default(),
            sampled: Vec::new(),
        };
        let measured = sizes.measured().max_by_key(BatchShape::n_tokens);
        let measured = measured.unwrap_or_default();
        for step in steps {
            for (index, picks) in plan.micro_batches(step).iter().enumerate() {
                forecast.add(step, index, &sizes.batch(picks), &measured, cost);
            }
        }
        forecast.sampled.sort_by(|a, b| a.flops.total_cmp(&b.flops));
        forecast
    }

    fn add(
        &mut self,
        step: u64,
        index: usize,
        batch: &BatchShape,
        measured: &BatchShape,
        cost: &CostModel<'_>,
    ) {
        let work = cost.micro_batch(batch);
        self.n_batches += 1;
        self.train_tokens += batch.n_tokens();
        self.loss_tokens += batch.n_supervised;
        self.flops += work;
        let memory = cost.memory(batch, measured);
        if memory.total() > self.memory.total() {
            self.memory = memory;
            self.fullest = batch.clone();
        }
        if self.sampled.len() < SAMPLED {
            self.sampled.push(Sampled {
                step,
                index,
                flops: work.total(),
                measuring_flops: cost.measurement(batch).total(),
            });
        }
    }

    /// A micro-batch of median work and the one of the most, of those looked at; `None` when no step is left.
    pub(super) fn samples(&self) -> Option<[&Sampled; 2]> {
        let median = self.sampled.get(self.sampled.len() / 2)?;
        Some([median, self.sampled.last()?])
    }

    /// The fullest moment. Of what is there already the system and the model know better than any formula.
    pub(super) fn memory(&self, run: &Run<'_>, room: Room) -> Memory {
        let base_bytes = run.model.size_bytes() as u64;
        Memory {
            base_bytes,
            process_bytes: room.held_bytes.map_or(self.memory.process_bytes, |held| {
                held.saturating_sub(base_bytes)
            }),
            ..self.memory
        }
    }
}

/// How often the run stops to measure and to write.
fn checkpoints(config: &TrainingConfig, steps: &std::ops::Range<u64>) -> u64 {
    let every = config.checkpoint_every;
    let whole = steps.end / every - steps.start / every;
    let last = u64::from(!steps.end.is_multiple_of(every) && !steps.is_empty());
    whole.min(steps.end.saturating_sub(steps.start)) + last
}

/// The validation file before the first step and at every checkpoint, the general text before and after.
fn measuring(run: &Run<'_>, sizes: &Sizes<'_>, cost: &CostModel<'_>, n_checkpoints: u64) -> Flops {
    let mut once = Flops::default();
    for batch in sizes.measured() {
        once += cost.measurement(&batch);
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of checkpoints")]
    let mut all = once * (n_checkpoints + 1) as f64;
    if run.config.care.max_perplexity_increase.is_some() {
        for piece in run.probe.iter().flat_map(|probe| probe.shapes()) {
            all += cost.forward(&piece) * 2.0;
        }
    }
    all
}

/// What learns with both moments, and the best state where it is kept.
fn checkpoint_bytes(run: &Run<'_>, cost: &CostModel<'_>) -> u64 {
    let keeps_best = run.valid.is_some() && run.config.care.keep == Keep::Best;
    4 * cost.n_learned() * if keeps_best { 4 } else { 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_ends_with_a_checkpoint_whatever_its_number() {
        let config = |every| TrainingConfig {
            checkpoint_every: every,
            ..TrainingConfig::default()
        };
        assert_eq!(checkpoints(&config(4), &(0..8)), 2);
        assert_eq!(checkpoints(&config(4), &(0..9)), 3);
        assert_eq!(checkpoints(&config(4), &(4..9)), 2);
        assert_eq!(checkpoints(&config(100), &(0..9)), 1);
        assert_eq!(checkpoints(&config(4), &(8..8)), 0);
    }
}

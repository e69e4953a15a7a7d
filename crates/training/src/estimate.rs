//! What a run will take, before it starts.
//!
//! Tokens and steps are counted, operations and memory follow from sizes ([`domain::cost`]), and seconds from timing a few
//! of the run's own micro-batches on the device. A run that does not fit is refused before any of that is computed.

mod forecast;
mod misfit;
mod words;

use std::time::Duration;

use domain::TrainingConfig;
use domain::cost::{BatchShape, CostModel, Flops, Memory};
use lm::{Device, ModelConfig};
use serde::{Deserialize, Serialize};

use crate::batch::Plan;
use crate::memory::Room;
use crate::settings;
use crate::train::{Run, TrainError, Trial};

use forecast::Forecast;

pub use misfit::Misfit;

/// What the steps that are left will take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Steps to make; fewer if the run ends early.
    pub steps: u64,
    /// Their tokens, prompts included.
    pub train_tokens: u64,
    /// Their supervised tokens.
    pub loss_tokens: u64,
    /// Operations of the steps.
    pub flops: Flops,
    /// Operations of measuring the validation file and the general text.
    pub measuring_flops: Flops,
    /// All of it.
    pub seconds: f64,
    /// Of which the steps.
    pub step_seconds: f64,
    /// The fullest moment, by what takes the memory.
    pub memory: Memory,
    /// The whole process at its fullest moment; `None` on a device whose memory is not looked at yet.
    pub peak_bytes: Option<u64>,
    /// What the process may hold in all, where that is known.
    pub limit_bytes: Option<u64>,
}

/// A checkpoint's bytes that are written, synced and hashed in a second on a slow disk.
const CHECKPOINT_BYTES_PER_SEC: f64 = 2e8;
/// A run that takes this many micro-batches' time is worth timing more than one of them.
const WORTH_A_SECOND_LOOK: f64 = 20.0;
/// How often the median one is timed then: for at most this share of the run, and no more than is good for a mean.
const SHARE: f64 = 0.04;
const MOST_LOOKS: u32 = 4;
/// A largest micro-batch that is this much larger than the median one says how time grows with size.
const LARGER: f64 = 1.2;
/// Bounds of how much faster or slower than in proportion time may grow between the two.
const GROWTH: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// Predicts `run`, which is as it would be handed to [`crate::train()`] and changes nothing in it.
///
/// # Errors
/// [`TrainError::DoesNotFit`] with the numbers when it needs more memory than `room` has. Nothing is computed before that.
pub fn estimate(run: &Run<'_>, room: Room) -> Result<Estimate, TrainError> {
    let shape = settings::model_shape(run.model.config());
    let cost = CostModel::new(&shape, run.config);
    let mut plan = run.plan();
    let forecast = Forecast::new(run, &mut plan, &cost);
    let on_cpu = run.model.device().is_cpu();
    let memory = forecast.memory(run, room);
    if on_cpu {
        misfit::check(&memory, room, &forecast.fullest, run.config)?;
    }
    let times = Times::measure(run, &mut plan, &forecast)?;
    let (seconds, step_seconds) = times.of(&forecast);
    Ok(Estimate {
        steps: forecast.steps,
        train_tokens: forecast.train_tokens,
        loss_tokens: forecast.loss_tokens,
        flops: forecast.flops,
        measuring_flops: forecast.measuring_flops,
        seconds,
        step_seconds,
        memory,
        peak_bytes: on_cpu.then(|| memory.total()),
        limit_bytes: if on_cpu { room.limit_bytes() } else { None },
    })
}

/// Refuses a run that has no room for its base model and for what learns, whatever its rows. Before the base is read: a
/// machine that runs out of memory on the way kills the process and says nothing.
///
/// # Errors
/// [`TrainError::DoesNotFit`] with the numbers.
pub fn check_before_loading(
    model: &ModelConfig,
    config: &TrainingConfig,
    device: &Device,
    room: Room,
) -> Result<(), TrainError> {
    if !device.is_cpu() {
        return Ok(());
    }
    let shape = settings::model_shape(model);
    let nothing = BatchShape::default();
    let memory = CostModel::new(&shape, config).memory(&nothing, &nothing);
    misfit::check_all(&memory, room, config)
}

/// How often to time the median micro-batch of a run that takes `expected` times as long.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped"
)]
fn looks(expected: f64) -> u32 {
    (expected * SHARE).clamp(1.0, f64::from(MOST_LOOKS)) as u32
}

/// What pieces of the run took.
struct Times {
    /// The median micro-batch's operations and seconds.
    median: [f64; 2],
    /// Seconds for one more operation.
    slope: f64,
    update: f64,
    /// Seconds for an operation without gradients.
    measuring: f64,
}

impl Times {
    fn measure(run: &Run<'_>, plan: &mut Plan, forecast: &Forecast) -> Result<Self, TrainError> {
        let Some([median, largest]) = forecast.samples() else {
            return Ok(Self::none());
        };
        let mut picks = |sample: &forecast::Sampled| {
            let mut batches = plan.micro_batches(sample.step);
            batches.swap_remove(sample.index)
        };
        let (median_picks, largest_picks) = (picks(median), picks(largest));
        let mut trial = Trial::new(run);
        // The first also fetches weights and memory, which a short run does as well.
        let [mut gradients, mut update] = trial.micro_batch(median.step, &median_picks)?;
        let expected = forecast.flops.total() / median.flops;
        let mut slope = gradients.as_secs_f64() / median.flops;
        if expected > WORTH_A_SECOND_LOOK {
            let looks = looks(expected);
            (gradients, update) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..looks {
                let [one, another] = trial.micro_batch(median.step, &median_picks)?;
                gradients += one / looks;
                update += another / looks;
            }
            slope = gradients.as_secs_f64() / median.flops;
            if largest.flops > LARGER * median.flops {
                let [larger, _] = trial.micro_batch(largest.step, &largest_picks)?;
                let found = (larger.as_secs_f64() - gradients.as_secs_f64())
                    / (largest.flops - median.flops);
                slope = found.clamp(GROWTH.start() * slope, GROWTH.end() * slope);
            }
        }
        let measuring = if forecast.measuring_flops.total() > 0.0 {
            trial.measurement(&median_picks)?.as_secs_f64() / median.measuring_flops
        } else {
            0.0
        };
        Ok(Self {
            median: [median.flops, gradients.as_secs_f64()],
            slope,
            update: update.as_secs_f64(),
            measuring,
        })
    }

    /// Of a run whose steps are all made.
    fn none() -> Self {
        Self {
            median: [0.0; 2],
            slope: 0.0,
            update: 0.0,
            measuring: 0.0,
        }
    }

    /// Seconds of everything, and of the steps.
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^52")]
    fn of(&self, forecast: &Forecast) -> (f64, f64) {
        let [median_flops, median_seconds] = self.median;
        let n = forecast.n_batches as f64;
        let beyond = forecast.flops.total() - n * median_flops;
        let gradients = (n * median_seconds + beyond * self.slope).max(0.0);
        let steps = gradients + forecast.steps as f64 * self.update;
        let measuring = forecast.measuring_flops.total() * self.measuring;
        let writing = forecast.checkpoint_bytes as f64 / CHECKPOINT_BYTES_PER_SEC;
        (steps + measuring + writing, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_runs_are_looked_at_more_often_but_not_without_end() {
        assert_eq!([20.0, 60.0, 100.0, 1e9].map(looks), [1, 2, 4, 4]);
    }
}

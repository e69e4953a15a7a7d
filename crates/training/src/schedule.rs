//! The learning rate of every step.

use domain::TrainingConfig;
use domain::config::LrSchedule;

/// From a step to its learning rate.
#[derive(Debug, Clone)]
pub struct Schedule {
    kind: LrSchedule,
    peak: f64,
    warmup_steps: u64,
    total_steps: u64,
}

impl Schedule {
    /// The schedule of a run of `total_steps`.
    pub fn new(config: &TrainingConfig, total_steps: u64) -> Self {
        Self {
            kind: config.lr_schedule,
            peak: config.learning_rate,
            warmup_steps: config.warmup_steps,
            total_steps,
        }
    }

    /// The rate of the update at `step`, counted from 0.
    ///
    /// Warmup climbs in a line and reaches the peak at step `warmup_steps`. Linear and cosine then fall so that the
    /// step after the last would be 0, as `transformers`' schedules of these names do.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * ratio(step, self.warmup_steps);
        }
        let done = ratio(
            step - self.warmup_steps,
            self.total_steps.saturating_sub(self.warmup_steps),
        );
        match self.kind {
            LrSchedule::Constant => self.peak,
            LrSchedule::Linear => self.peak * (1.0 - done).max(0.0),
            LrSchedule::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "steps stay far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: LrSchedule, warmup_steps: u64) -> Schedule {
        Schedule {
            kind,
            peak: 1.0,
            warmup_steps,
            total_steps: 10 + warmup_steps,
        }
    }

    #[test]
    fn warmup_climbs_to_the_peak() {
        let schedule = schedule(LrSchedule::Constant, 4);
        let rates: Vec<f64> = (0..6).map(|step| schedule.learning_rate(step)).collect();
        assert_eq!(rates, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]);
    }

    #[test]
    fn linear_and_cosine_end_at_zero() {
        for kind in [LrSchedule::Linear, LrSchedule::Cosine] {
            let schedule = schedule(kind, 2);
            assert!((schedule.learning_rate(2) - 1.0).abs() < 1e-12);
            assert!((schedule.learning_rate(7) - 0.5).abs() < 1e-12);
            assert!(schedule.learning_rate(12).abs() < 1e-12);
        }
    }
}

//! Which of a run's states becomes the model, and when to stop looking for a better one.

use domain::config::{Care, Keep};
use serde::{Deserialize, Serialize};

use crate::eval::Evaluation;

/// The best state so far, and how long ago that was.
#[derive(Debug, Clone)]
pub struct Selection<T> {
    keeps_best: bool,
    /// Measurements without a gain after which the run ends, and what counts as one.
    patience: Option<u64>,
    min_delta: f64,
    progress: Progress,
    best: Option<T>,
}

/// What of a selection a checkpoint keeps as JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The step with the lowest validation loss.
    pub best_step: Option<u64>,
    /// What was measured there.
    pub best: Option<Evaluation>,
    /// The loss that the next gain is measured against, in nats.
    pub to_beat: Option<f64>,
    /// Measurements since the last gain.
    pub without_gain: u64,
    /// Whether the measurement after the last step was due and is still to be made.
    #[serde(default)]
    pub owes: bool,
}

impl<T: Clone> Selection<T> {
    /// A selection that has seen nothing.
    pub fn new(care: &Care) -> Self {
        Self {
            keeps_best: care.keep == Keep::Best,
            patience: care.early_stopping.map(|early| early.patience),
            min_delta: care.early_stopping.map_or(0.0, |early| early.min_delta),
            progress: Progress::default(),
            best: None,
        }
    }

    /// A selection as a checkpoint kept it. `best` is the state at its best step.
    #[must_use]
    pub fn resume(care: &Care, progress: Progress, best: Option<T>) -> Self {
        let new = Self::new(care);
        Self {
            progress,
            best: best.filter(|_| new.keeps_best),
            ..new
        }
    }

    /// The state after `step` was measured. Of equals the later one is better: it has seen more.
    pub fn measured(&mut self, step: u64, valid: Evaluation, state: &T) {
        self.progress.owes = false;
        if self
            .progress
            .best
            .is_none_or(|best| valid.loss <= best.loss)
        {
            self.progress.best_step = Some(step);
            self.progress.best = Some(valid);
            self.best = self.keeps_best.then(|| state.clone());
        }
        match self.progress.to_beat {
            Some(to_beat) if valid.loss >= to_beat - self.min_delta => {
                self.progress.without_gain += 1;
            }
            _ => {
                self.progress.to_beat = Some(valid.loss);
                self.progress.without_gain = 0;
            }
        }
    }

    /// The measurement after the last step was interrupted. Whoever resumes there makes it.
    pub fn interrupted(&mut self) {
        self.progress.owes = true;
    }

    /// Whether the run has gone on long enough without a gain.
    pub fn is_over(&self) -> bool {
        self.patience
            .is_some_and(|patience| self.progress.without_gain >= patience)
    }

    /// What a checkpoint keeps.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The best state, if it is to be kept.
    pub fn best(&self) -> Option<(u64, Evaluation, &T)> {
        let Progress {
            best_step, best, ..
        } = self.progress;
        Some((best_step?, best?, self.best.as_ref()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::config::EarlyStopping;

    fn measured(losses: &[f64], patience: u64, min_delta: f64) -> (Option<u64>, Option<u64>) {
        let care = Care {
            early_stopping: Some(EarlyStopping {
                patience,
                min_delta,
            }),
            keep: Keep::Best,
            ..Care::default()
        };
        let mut selection = Selection::new(&care);
        for (step, loss) in (1..).zip(losses) {
            let valid = Evaluation {
                loss: *loss,
                accuracy: 0.0,
                n_loss_tokens: 1,
            };
            selection.measured(step, valid, &());
            if selection.is_over() {
                return (Some(step), selection.best().map(|(step, ..)| step));
            }
        }
        (None, selection.best().map(|(step, ..)| step))
    }

    #[test]
    fn a_run_ends_when_patience_is_over_and_keeps_its_best() {
        assert_eq!(
            measured(&[3.0, 2.0, 2.5, 2.4, 1.0], 2, 0.0),
            (Some(4), Some(2))
        );
        assert_eq!(
            measured(&[3.0, 2.0, 2.5, 1.0, 1.1], 2, 0.0),
            (None, Some(4))
        );
        assert_eq!(measured(&[2.0, 2.0], 3, 0.0), (None, Some(2)));
    }

    #[test]
    fn a_small_gain_is_none_but_may_still_be_the_best() {
        let losses = [2.0, 1.95, 1.91];
        assert_eq!(measured(&losses, 2, 0.1), (Some(3), Some(3)));
    }
}

//! Pieces of a run, done for their time alone: what learns in them is a copy that is thrown away.

use std::time::{Duration, Instant};

use domain::TrainingConfig;
use lm::Learned;
use lm::profile;

use super::gradients::{StepContext, Sums};
use super::state;
use super::{Run, TrainError};
use crate::adamw::{self, AdamW};
use crate::batch::{MicroBatch, Pick};
use crate::objective::{self, Forward, Objective};

/// A copy of a run that leaves no trace.
pub(crate) struct Trial<'a, 'b> {
    run: &'b Run<'a>,
    objective: Box<dyn Objective>,
    learned: Learned,
    optimizer: AdamW,
}

impl<'a, 'b> Trial<'a, 'b> {
    pub(crate) fn new(run: &'b Run<'a>) -> Self {
        let config: &TrainingConfig = run.config;
        let learned = match &run.resume {
            Some(checkpoint) => checkpoint.learned.clone(),
            None => state::first(run),
        };
        Self {
            run,
            objective: objective::of(config),
            optimizer: AdamW::new(config, &learned),
            learned,
        }
    }

    /// The times of one micro-batch's gradients, as if it were all of `step`, and of the update with them.
    pub(crate) fn micro_batch(
        &mut self,
        step: u64,
        picks: &[Pick],
    ) -> Result<[Duration; 2], TrainError> {
        let samples = state::read(self.run, picks)?;
        let started = Instant::now();
        let batch = MicroBatch::of(&samples);
        let context = StepContext {
            objective: self.objective.as_ref(),
            model: self.run.model,
            learned: &self.learned,
            reference: self.run.reference(),
            activations: state::activations(self.run.config),
            baseline: self
                .objective
                .baseline(&self.run.policy(&self.learned), &samples),
            n_units: self.objective.n_units(&batch),
        };
        let mut sums = Sums::default();
        let dropout = state::dropout(self.run.config, step, 0);
        sums.add(&context, &batch, dropout.as_ref());
        let gradients_took = started.elapsed();

        let started = Instant::now();
        let norm = adamw::global_norm(&sums.gradients);
        let gradients = adamw::clip(sums.gradients, norm, self.run.config.max_grad_norm);
        // A rate of 0: the copy stays what a run begins with, whatever it is tried on.
        let updated = self.optimizer.update(self.learned.clone(), gradients, 0.0);
        drop(updated);
        Ok([gradients_took, started.elapsed()])
    }

    /// The time of a micro-batch's loss without gradients.
    pub(crate) fn measurement(&self, picks: &[Pick]) -> Result<Duration, TrainError> {
        let samples = state::read(self.run, picks)?;
        let started = Instant::now();
        let (batch, policy) = (MicroBatch::of(&samples), self.run.policy(&self.learned));
        let loss = self.objective.loss(Forward {
            model: &policy.model,
            batch: &batch,
            hidden: policy.model.hidden(&batch.input, policy.adapter, None),
            reference: policy.reference,
            baseline: self.objective.baseline(&policy, &samples),
        });
        // Reading the sum waits for the device.
        let _: f32 = loss.sum.into_scalar();
        Ok(started.elapsed())
    }
}

impl Drop for Trial<'_, '_> {
    fn drop(&mut self) {
        // What was tried is not the steps'.
        let _ = profile::take();
    }
}

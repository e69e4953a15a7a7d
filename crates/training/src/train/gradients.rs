//! The gradients of one step.

use burn::tensor::Tensor;
use lm::lora::Dropout;
use lm::{Activations, CausalLm, Learned};

use crate::batch::MicroBatch;
use crate::objective::{Forward, Objective, Reference};

/// What every micro-batch of a step has in common.
pub(super) struct StepContext<'a> {
    pub(super) objective: &'a dyn Objective,
    pub(super) model: &'a CausalLm,
    pub(super) learned: &'a Learned,
    pub(super) reference: Reference<'a>,
    pub(super) activations: Activations,
    /// As the objective gave it for the whole step.
    pub(super) baseline: f64,
    /// Of all micro-batches together.
    pub(super) n_units: usize,
}

/// What the micro-batches of one step add up to.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) loss: f64,
    pub(super) n_correct: u64,
    /// In the order of [`Learned::named_tensors`]; empty before the first micro-batch.
    pub(super) gradients: Vec<Tensor<2>>,
}

impl Sums {
    pub(super) fn add(
        &mut self,
        step: &StepContext<'_>,
        batch: &MicroBatch,
        dropout: Option<&Dropout>,
    ) {
        let objective = |model: &CausalLm, hidden| {
            let loss = step.objective.loss(Forward {
                model,
                batch,
                hidden,
                reference: step.reference,
                baseline: step.baseline,
            });
            #[expect(clippy::cast_precision_loss, reason = "token counts stay below 2^52")]
            let mean = loss.sum / step.n_units as f64;
            let value = f64::from(mean.clone().into_scalar::<f32>());
            (mean, (value, loss.n_correct))
        };
        let ((loss, n_correct), gradients) = step.model.gradients(
            step.learned,
            &batch.input,
            dropout,
            step.activations,
            objective,
        );
        self.loss += loss;
        self.n_correct += n_correct;
        self.gradients = if self.gradients.is_empty() {
            gradients
        } else {
            let sums = std::mem::take(&mut self.gradients).into_iter();
            sums.zip(gradients).map(|(a, b)| a + b).collect()
        };
    }
}

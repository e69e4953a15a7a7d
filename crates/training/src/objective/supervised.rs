//! Cross-entropy of what the assistant said, and optionally how far the model has moved from its reference.

use super::log_probs::supervised_rows;
use super::{Forward, Loss, Objective, count};
use crate::batch::MicroBatch;

/// Per supervised token: `−log p(token) + kl_weight · KL(reference ‖ model)`, in nats.
pub(super) struct Supervised {
    pub(super) kl_weight: f64,
}

impl Objective for Supervised {
    fn n_units(&self, batch: &MicroBatch) -> usize {
        batch.n_loss_tokens()
    }

    fn loss(&self, forward: Forward<'_>) -> Loss {
        let Forward {
            model,
            batch,
            hidden,
            reference,
            ..
        } = forward;
        let hidden = supervised_rows(hidden, batch);
        let targets = batch.targets.clone().into();
        let rows_n2 = model.cross_entropy(hidden.clone(), &targets);
        let n_correct = rows_n2.clone().inner().narrow(1, 1, 1).sum();
        let mut sum = rows_n2.narrow(1, 0, 1).sum();
        if self.kl_weight > 0.0 {
            let before = reference
                .model
                .hidden(&batch.input, reference.adapter, None);
            let before = supervised_rows(before, batch);
            let kl_n1 = model.kl_divergence(hidden, before);
            sum = sum + kl_n1.sum() * self.kl_weight;
        }
        Loss {
            sum,
            n_correct: count(n_correct.into_scalar()),
        }
    }
}

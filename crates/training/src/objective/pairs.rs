//! What the losses over pairs of answers share.

use burn::tensor::Tensor;

use super::log_probs::{row_lengths, row_log_probs};
use super::{Forward, Loss, Objective, count};
use crate::batch::MicroBatch;

/// A loss over pairs: a better answer and a worse one to the same prompt.
pub(super) trait PairLoss {
    /// Whether it looks at the reference.
    const HAS_REFERENCE: bool;

    /// How good the model finds each answer; it orders a pair rightly when the better one has more.
    ///
    /// # Shapes
    /// `[pairs]`
    fn reward(&self, answers: &Answers) -> Tensor<1>;

    /// The loss of each pair.
    ///
    /// # Shapes
    /// `[pairs]`
    fn losses(&self, better: &Answers, worse: &Answers) -> Tensor<1>;
}

/// One answer of each pair. All are `[pairs]`.
pub(super) struct Answers {
    /// The answer's log-probability.
    pub(super) log_prob: Tensor<1>,
    /// By how much the model finds it likelier than the reference does; 0 without one.
    pub(super) log_ratio: Tensor<1>,
    /// The answer's tokens.
    pub(super) length: Tensor<1>,
}

impl Answers {
    /// The mean log-probability of a token.
    pub(super) fn mean_log_prob(&self) -> Tensor<1> {
        self.log_prob.clone() / self.length.clone()
    }

    /// The mean of a token's log-ratio.
    pub(super) fn mean_log_ratio(&self) -> Tensor<1> {
        self.log_ratio.clone() / self.length.clone()
    }
}

/// Turns a loss over pairs into an objective.
pub(super) struct Pairs<L>(pub(super) L);

impl<L: PairLoss> Objective for Pairs<L> {
    fn n_units(&self, batch: &MicroBatch) -> usize {
        batch.n_rows() / 2
    }

    fn loss(&self, forward: Forward<'_>) -> Loss {
        let Forward {
            model,
            batch,
            hidden,
            reference,
            ..
        } = forward;
        let log_probs = row_log_probs(model, hidden, batch);
        let log_ratios = if L::HAS_REFERENCE {
            log_probs.clone() - reference.row_log_probs(batch, &log_probs)
        } else {
            log_probs.zeros_like()
        };
        let lengths = row_lengths(batch, &log_probs);
        let n = self.n_units(batch);
        let answers = |first| Answers {
            log_prob: log_probs.clone().narrow(0, first, n),
            log_ratio: log_ratios.clone().narrow(0, first, n),
            length: lengths.clone().narrow(0, first, n),
        };
        let (better, worse) = (answers(0), answers(n));
        let margin = (self.0.reward(&better) - self.0.reward(&worse)).inner();
        Loss {
            n_correct: count(margin.greater_elem(0.0).float().sum().into_scalar()),
            sum: self.0.losses(&better, &worse).sum(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn line(value: f32) -> Tensor<1> {
        Tensor::from_data(
            TensorData::new(vec![value], [1]),
            &burn::tensor::Device::flex(),
        )
    }

    /// The loss of one pair, whose answers are `(log-probability, the reference's, tokens)`.
    pub(in crate::objective) fn loss_of(
        loss: &impl PairLoss,
        better: (f32, f32, f32),
        worse: (f32, f32, f32),
    ) -> f64 {
        let answers = |(log_prob, reference, length): (f32, f32, f32)| Answers {
            log_prob: line(log_prob),
            log_ratio: line(log_prob - reference),
            length: line(length),
        };
        let losses = loss.losses(&answers(better), &answers(worse));
        f64::from(losses.into_scalar::<f32>())
    }

    /// `log σ(x)`, for tests to compute losses by hand.
    pub(in crate::objective) fn log_sigmoid(x: f64) -> f64 {
        -(-x).exp().ln_1p()
    }
}

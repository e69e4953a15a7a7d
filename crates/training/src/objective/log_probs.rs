//! Log-probabilities of rows' supervised tokens.

use burn::tensor::{Int, Tensor, TensorData};
use lm::{Adapter, CausalLm};

use super::Reference;
use crate::batch::MicroBatch;

/// The hidden states from which the supervised tokens are predicted: the head runs nowhere else, so `[tokens, v]` never
/// exists.
///
/// # Shapes
/// `hidden`: `[tokens, d]`; returns `[n, d]`.
pub(super) fn supervised_rows(hidden: Tensor<2>, batch: &MicroBatch) -> Tensor<2> {
    let index = |position: &usize| i32::try_from(*position).expect("positions stay below 2^31");
    let positions: Vec<i32> = batch.positions.iter().map(index).collect();
    let data = TensorData::new(positions, [batch.n_loss_tokens()]);
    let positions = Tensor::<1, Int>::from_data(data, &hidden.device());
    hidden.select(0, positions)
}

/// The log-probability of each row's supervised tokens together, in nats.
///
/// # Shapes
/// `hidden`: `[tokens, d]`; returns `[r]`.
pub(super) fn row_log_probs(model: &CausalLm, hidden: Tensor<2>, batch: &MicroBatch) -> Tensor<1> {
    let targets = batch.targets.clone().into();
    let nll = model.cross_entropy(supervised_rows(hidden, batch), &targets);
    let nll: Tensor<1> = nll.narrow(1, 0, 1).squeeze_dim(1);
    let mut start = 0;
    let rows = batch.row_targets.iter().map(|n| {
        let row = nll.clone().narrow(0, start, *n).sum();
        start += n;
        row
    });
    Tensor::cat(rows.collect(), 0).neg()
}

impl Reference<'_> {
    /// As [`row_log_probs`], of the reference; `like` decides the device. A constant of the graph.
    pub(super) fn row_log_probs(&self, batch: &MicroBatch, like: &Tensor<1>) -> Tensor<1> {
        let log_probs = without_graph(self.model, self.adapter, batch);
        Tensor::from_data(log_probs.into_data(), &like.device())
    }
}

/// As [`row_log_probs`], of a model that records nothing.
pub(super) fn without_graph(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    batch: &MicroBatch,
) -> Tensor<1> {
    let hidden = model.hidden(&batch.input, adapter, None);
    row_log_probs(model, hidden, batch)
}

/// How many supervised tokens each row has.
///
/// # Shapes
/// `[r]`
#[expect(clippy::cast_precision_loss, reason = "rows are short")]
pub(super) fn row_lengths(batch: &MicroBatch, like: &Tensor<1>) -> Tensor<1> {
    let lengths: Vec<f32> = batch.row_targets.iter().map(|n| *n as f32).collect();
    let n = lengths.len();
    Tensor::from_data(TensorData::new(lengths, [n]), &like.device())
}

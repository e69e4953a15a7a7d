//! From hidden states to a loss.
//!
//! Legend: `n` supervised tokens, `d` model width, `v` vocabulary.

use burn::tensor::{Int, Tensor, TensorData, activation};
use lm::CausalLm;

use crate::batch::MicroBatch;

/// The cross-entropy of one micro-batch.
pub struct Loss {
    /// Summed over the supervised tokens, in nats, on the graph. `[1]`
    pub nll: Tensor<1>,
    /// Supervised tokens that the model would have said itself.
    pub n_correct: u64,
}

/// Completion-only cross-entropy. The head runs on supervised positions alone: `[tokens, v]` never exists.
///
/// # Shapes
/// - `hidden_td`: `[tokens, d]`, after the final norm.
pub fn cross_entropy(model: &CausalLm, hidden_td: Tensor<2>, batch: &MicroBatch) -> Loss {
    let device = hidden_td.device();
    let n = batch.n_loss_tokens();
    let positions = Tensor::<1, Int>::from_data(
        TensorData::new(
            batch
                .positions
                .iter()
                .map(|p| index(*p))
                .collect::<Vec<_>>(),
            [n],
        ),
        &device,
    );
    let targets = Tensor::<1, Int>::from_data(
        TensorData::new(
            batch
                .targets
                .iter()
                .map(|t| index(*t as usize))
                .collect::<Vec<_>>(),
            [n],
        ),
        &device,
    );
    let logits_nv = model.logits(hidden_td.select(0, positions));
    let n_correct = count_equal(logits_nv.clone().inner(), targets.clone().inner());
    let log_probs_nv = activation::log_softmax(logits_nv, 1);
    let nll = log_probs_nv.gather(1, targets.reshape([n, 1])).sum().neg();
    Loss { nll, n_correct }
}

fn count_equal(logits_nv: Tensor<2>, targets: Tensor<1, Int>) -> u64 {
    let [n, _] = logits_nv.dims();
    let said = logits_nv.argmax(1).reshape([n]);
    let equal = said.equal(targets).int().sum().into_scalar::<i64>();
    u64::try_from(equal).expect("a count")
}

fn index(value: usize) -> i32 {
    i32::try_from(value).expect("positions and token ids stay below 2^31")
}

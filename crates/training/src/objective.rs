//! From hidden states to a loss.
//!
//! Legend: `n` supervised tokens, `d` model width, `v` vocabulary.

use burn::tensor::{Int, Tensor, TensorData};
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
    let n = batch.n_loss_tokens();
    let positions: Vec<i32> = batch.positions.iter().map(|p| index(*p)).collect();
    let data = TensorData::new(positions, [n]);
    let positions = Tensor::<1, Int>::from_data(data, &hidden_td.device());
    let targets = batch.targets.clone().into();
    let rows_n2 = model.cross_entropy(hidden_td.select(0, positions), &targets);
    let n_correct = rows_n2.clone().inner().narrow(1, 1, 1).sum();
    Loss {
        nll: rows_n2.narrow(1, 0, 1).sum(),
        n_correct: count(n_correct.into_scalar()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a whole number")]
#[expect(clippy::cast_sign_loss, reason = "not negative")]
fn count(value: f32) -> u64 {
    value as u64
}

fn index(value: usize) -> i32 {
    i32::try_from(value).expect("positions and token ids stay below 2^31")
}

//! Loss and accuracy without gradients.

use lm::{Adapter, CausalLm};
use serde::{Deserialize, Serialize};
use text::Example;

use crate::batch::{MicroBatch, by_tokens};
use crate::objective;

/// Tokens that are evaluated together. More would only take more memory.
const TOKENS_AT_ONCE: usize = 2048;

/// How well a model predicts the supervised tokens of a set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy per supervised token, in nats.
    pub loss: f64,
    /// Share of supervised tokens that the model would have said itself.
    pub accuracy: f64,
    /// Supervised tokens.
    pub n_loss_tokens: u64,
}

/// Evaluates `rows`; `None` if they hold nothing to predict. `model` must not be the autodiff view.
pub fn evaluate(
    model: &CausalLm,
    adapter: Option<&Adapter>,
    rows: &[Example],
) -> Option<Evaluation> {
    let (mut nll, mut n_correct, mut n_loss_tokens) = (0.0, 0, 0);
    for group in by_tokens(rows, TOKENS_AT_ONCE) {
        let batch = MicroBatch::new(&rows[group]);
        if batch.n_loss_tokens() == 0 {
            continue;
        }
        let hidden = model.hidden(&batch.input, adapter, None);
        let loss = objective::cross_entropy(model, hidden, &batch);
        nll += f64::from(loss.nll.into_scalar::<f32>());
        n_correct += loss.n_correct;
        n_loss_tokens += batch.n_loss_tokens() as u64;
    }
    #[expect(clippy::cast_precision_loss, reason = "token counts stay below 2^52")]
    (n_loss_tokens > 0).then(|| Evaluation {
        loss: nll / n_loss_tokens as f64,
        accuracy: n_correct as f64 / n_loss_tokens as f64,
        n_loss_tokens,
    })
}

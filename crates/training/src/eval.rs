//! Loss and accuracy without gradients.

use std::io;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::batch::{MicroBatch, by_tokens};
use crate::objective::{Forward, Objective, Policy};
use crate::observer::{Next, Observer};
use crate::rows::{Rows, Sample};

/// Tokens that are evaluated together. More would only take more memory.
pub(crate) const TOKENS_AT_ONCE: usize = 2048;

/// What a model makes of a set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The mean loss: of a supervised token in nats, of a pair or of a judged row.
    pub loss: f64,
    /// Share of supervised tokens that the model would have said itself, or of pairs or judged rows that it finds as they
    /// are.
    pub accuracy: f64,
    /// Supervised tokens.
    pub n_loss_tokens: u64,
}

/// Evaluates `rows`; `None` if they hold nothing to predict. The observer is asked before every few of them; if it does not
/// go on, nothing is known of any.
///
/// # Errors
/// When the rows cannot be read.
pub fn evaluate(
    objective: &dyn Objective,
    policy: &Policy<'_>,
    rows: &Rows,
    observer: &mut dyn Observer,
) -> io::Result<ControlFlow<Next, Option<Evaluation>>> {
    let mut sums = Sums::default();
    for group in by_tokens(rows, TOKENS_AT_ONCE) {
        if let ControlFlow::Break(wish) = observer.on_micro_batch().flow() {
            return Ok(ControlFlow::Break(wish));
        }
        let samples: Vec<Sample> = group.map(|row| rows.get(row)).collect::<io::Result<_>>()?;
        sums.add(objective, policy, &samples);
    }
    Ok(ControlFlow::Continue(sums.mean()))
}

/// As [`evaluate`], of rows in memory.
pub fn evaluate_samples(
    objective: &dyn Objective,
    policy: &Policy<'_>,
    samples: &[Sample],
) -> Option<Evaluation> {
    let mut sums = Sums::default();
    sums.add(objective, policy, samples);
    sums.mean()
}

#[derive(Default)]
struct Sums {
    loss: f64,
    n_correct: u64,
    n_units: u64,
    n_loss_tokens: u64,
}

impl Sums {
    fn add(&mut self, objective: &dyn Objective, policy: &Policy<'_>, samples: &[Sample]) {
        let batch = MicroBatch::of(samples);
        if batch.n_loss_tokens() == 0 {
            return;
        }
        let loss = objective.loss(Forward {
            model: &policy.model,
            batch: &batch,
            hidden: policy.model.hidden(&batch.input, policy.adapter, None),
            reference: policy.reference,
            baseline: objective.baseline(policy, samples),
        });
        self.loss += f64::from(loss.sum.into_scalar::<f32>());
        self.n_correct += loss.n_correct;
        self.n_units += objective.n_units(&batch) as u64;
        self.n_loss_tokens += batch.n_loss_tokens() as u64;
    }

    #[expect(clippy::cast_precision_loss, reason = "token counts stay below 2^52")]
    fn mean(&self) -> Option<Evaluation> {
        (self.n_units > 0).then(|| Evaluation {
            loss: self.loss / self.n_units as f64,
            accuracy: self.n_correct as f64 / self.n_units as f64,
            n_loss_tokens: self.n_loss_tokens,
        })
    }
}

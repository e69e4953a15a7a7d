//! Kahneman-Tversky optimisation (Ethayarajh et al. 2024).

use burn::tensor::{Tensor, TensorData, activation};
use text::Example;

use super::log_probs::{row_log_probs, without_graph};
use super::{Forward, Loss, Objective, Policy, count};
use crate::batch::{MicroBatch, group};
use crate::rows::Sample;

/// `λ·(1 − σ(β·(log-ratio − z)))` for good rows and `λ·(1 − σ(β·(z − log-ratio)))` for bad ones, z being how far the model
/// has moved from its reference on the whole.
pub(super) struct Kto {
    pub(super) beta: f64,
    pub(super) desirable_weight: f64,
    pub(super) undesirable_weight: f64,
}

/// Tokens of mismatched rows that are measured together.
const TOKENS_AT_ONCE: usize = 2048;

impl Objective for Kto {
    fn n_units(&self, batch: &MicroBatch) -> usize {
        batch.n_rows()
    }

    /// z: the mean log-ratio of every row's prompt with the next row's answer, at least 0, as in the paper's section 4.2.
    /// It is taken over the whole step, so that it does not depend on how the step is split.
    fn baseline(&self, policy: &Policy<'_>, samples: &[Sample]) -> f64 {
        let mismatched = mismatched(samples);
        let lengths = mismatched.iter().map(Example::n_tokens);
        let mut sum = 0.0;
        for rows in group(lengths, TOKENS_AT_ONCE) {
            let batch = MicroBatch::new(&mismatched[rows]);
            let now = without_graph(&policy.model, policy.adapter, &batch);
            let before = policy.reference.row_log_probs(&batch, &now);
            sum += f64::from((now - before).sum().into_scalar::<f32>());
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        let mean = sum / samples.len().max(1) as f64;
        mean.max(0.0)
    }

    fn loss(&self, forward: Forward<'_>) -> Loss {
        let Forward {
            model,
            batch,
            hidden,
            reference,
            baseline,
        } = forward;
        let log_probs = row_log_probs(model, hidden, batch);
        let log_ratios = log_probs.clone() - reference.row_log_probs(batch, &log_probs);
        let line = |of: &dyn Fn(bool) -> f64| {
            #[expect(clippy::cast_possible_truncation, reason = "computed in f32")]
            let values: Vec<f32> = batch.good.iter().map(|good| of(*good) as f32).collect();
            let n = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [n]), &log_probs.device())
        };
        let sign = line(&|good| if good { 1.0 } else { -1.0 });
        let weight = line(&|good| {
            if good {
                self.desirable_weight
            } else {
                self.undesirable_weight
            }
        });
        let gain = (log_ratios - baseline) * sign;
        let n_correct = gain.clone().inner().greater_elem(0.0).float().sum();
        let value = activation::sigmoid(gain * self.beta);
        Loss {
            sum: ((value.neg() + 1.0) * weight).sum(),
            n_correct: count(n_correct.into_scalar()),
        }
    }
}

/// Each row's prompt with the answer of the next.
fn mismatched(samples: &[Sample]) -> Vec<Example> {
    let next = samples.iter().cycle().skip(1);
    let pairs = samples.iter().zip(next);
    pairs
        .map(|(prompt, answer)| {
            let (prompt, answer) = (&prompt.example, &answer.example);
            let (end, start) = (first_target(prompt), first_target(answer));
            Example {
                ids: [&prompt.ids[..end], &answer.ids[start..]].concat(),
                supervised: [&prompt.supervised[..end], &answer.supervised[start..]].concat(),
                truncated: false,
            }
        })
        .collect()
}

fn first_target(example: &Example) -> usize {
    let targets = example.supervised.iter().skip(1);
    1 + targets.take_while(|supervised| !**supervised).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataset::Judgement;

    #[test]
    fn a_prompt_meets_the_next_rows_answer_and_the_last_one_the_firsts() {
        let sample = |ids: &[u32], prompt: usize| Sample {
            example: Example {
                ids: ids.to_vec(),
                supervised: (0..ids.len()).map(|index| index >= prompt).collect(),
                truncated: false,
            },
            judgement: Judgement::Good,
        };
        let found = mismatched(&[sample(&[1, 2, 3, 4], 2), sample(&[5, 6, 7], 1)]);
        assert_eq!(found[0].ids, [1, 2, 6, 7]);
        assert_eq!(found[0].supervised, [false, false, true, true]);
        assert_eq!(found[1].ids, [5, 3, 4]);
    }
}

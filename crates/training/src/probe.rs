//! What fine-tuning costs elsewhere: the perplexity of a general text, before and after.
//!
//! The text is this project's own: short pieces on many subjects and in many forms, none of them a chat. A model whose
//! perplexity on it grows has forgotten something that had nothing to do with the rows it learned.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use text::{Example, TextError, TextModel};

use domain::TrainingConfig;
use domain::cost::BatchShape;

use crate::eval;
use crate::objective::{self, Policy};
use crate::observer::{Next, Observer};
use crate::rows::Sample;

/// Pieces, one a paragraph.
const TEXT: &str = include_str!("probe/general.txt");
/// Tokens of a piece that are looked at.
const MAX_PIECE_TOKENS: usize = 256;

/// The text as tokens.
#[derive(Debug, Clone)]
pub struct Probe(Vec<Sample>);

/// How the perplexity changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forgetting {
    /// Of the model that the run started from.
    pub perplexity_before: f64,
    /// Of the model that came out.
    pub perplexity_after: f64,
    /// The share of what it was by which it may grow.
    pub max_increase: f64,
}

impl Probe {
    /// The text in the tokens of a model that takes at most `max_seq_len` of them.
    ///
    /// # Errors
    /// When the tokenizer fails on it.
    pub fn new(text: &TextModel, max_seq_len: usize) -> Result<Self, TextError> {
        let pieces = TEXT.split("\n\n").map(str::trim);
        let samples = pieces.map(|piece| {
            let mut ids = text.tokenizer().encode(piece)?;
            ids.truncate(MAX_PIECE_TOKENS.min(max_seq_len));
            let supervised = (0..ids.len()).map(|index| index > 0).collect();
            Ok(Sample::plain(Example {
                ids,
                supervised,
                truncated: false,
            }))
        });
        Ok(Self(samples.collect::<Result<_, TextError>>()?))
    }

    /// The sizes of the pieces, in their order.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = BatchShape> + '_ {
        self.0.iter().map(|piece| BatchShape {
            rows: vec![piece.example.n_tokens() as u64],
            n_supervised: piece.example.n_supervised() as u64,
        })
    }

    /// `e` to the mean negative log-likelihood of a token; `None` where the tokenizer made no pieces of two tokens. The
    /// observer is asked before each piece.
    pub fn perplexity(
        &self,
        policy: &Policy<'_>,
        observer: &mut dyn Observer,
    ) -> ControlFlow<Next, Option<f64>> {
        let likelihood = objective::of(&TrainingConfig::default());
        // A piece at a time: the head runs on every token here, and its scores would take memory that training does not.
        let (mut nll, mut n) = (0.0, 0.0);
        for piece in self.0.chunks(1) {
            observer.on_micro_batch().flow()?;
            let Some(found) = eval::evaluate_samples(likelihood.as_ref(), policy, piece) else {
                continue;
            };
            #[expect(clippy::cast_precision_loss, reason = "a few thousand tokens")]
            let n_tokens = found.n_loss_tokens as f64;
            nll += found.loss * n_tokens;
            n += n_tokens;
        }
        ControlFlow::Continue((n > 0.0).then(|| (nll / n).exp()))
    }
}

impl Forgetting {
    /// What the model's owner should know, if it forgot more than it may.
    pub fn warning(&self) -> Option<String> {
        let increase = self.perplexity_after / self.perplexity_before - 1.0;
        // A perplexity that is no number is worse than any that is.
        let is_fine = increase <= self.max_increase;
        (!is_fine).then(|| {
            format!(
                "The perplexity of a general text grew by {:.0} %, from {:.2} to {:.2}; at most {:.0} % is allowed for. \
                 The model has forgotten some of what it knew: lower `learning_rate` or `n_epochs`, or mix in `replay` rows",
                increase * 100.0,
                self.perplexity_before,
                self.perplexity_after,
                self.max_increase * 100.0
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growth_within_the_bound_is_no_warning() {
        let forgetting = |after| Forgetting {
            perplexity_before: 20.0,
            perplexity_after: after,
            max_increase: 0.1,
        };
        assert_eq!(forgetting(21.9).warning(), None);
        assert_eq!(forgetting(12.0).warning(), None);
        let warning = forgetting(25.0).warning().unwrap();
        assert!(
            warning.contains("grew by 25 %, from 20.00 to 25.00"),
            "{warning}"
        );
        assert!(forgetting(f64::NAN).warning().is_some());
    }
}

//! Odds-ratio preference optimisation (Hong et al. 2024).

use burn::tensor::{Tensor, activation};

use super::pairs::{Answers, PairLoss};

/// `−log p(better) − β·log σ(log odds(better) − log odds(worse))` with p a token's geometric mean and odds p/(1 − p).
pub(super) struct Orpo {
    pub(super) beta: f64,
}

impl PairLoss for Orpo {
    const HAS_REFERENCE: bool = false;

    fn reward(&self, answers: &Answers) -> Tensor<1> {
        answers.mean_log_prob()
    }

    fn losses(&self, better: &Answers, worse: &Answers) -> Tensor<1> {
        let log_odds_ratio = log_odds(better) - log_odds(worse);
        let odds_loss = activation::log_sigmoid(log_odds_ratio).neg();
        better.mean_log_prob().neg() + odds_loss * self.beta
    }
}

/// `log(p / (1 − p))`. A probability of 1 has no odds, so it is taken as the next smaller one.
fn log_odds(answers: &Answers) -> Tensor<1> {
    let log_p = answers.mean_log_prob().clamp_max(-1e-6);
    log_p.clone() - (log_p.exp().neg() + 1.0).log()
}

#[cfg(test)]
mod tests {
    use super::super::pairs::tests::{log_sigmoid, loss_of};
    use super::*;

    #[test]
    fn it_is_the_papers_equations_6_and_7() {
        let loss = loss_of(&Orpo { beta: 0.2 }, (-2.0, 0.0, 4.0), (-3.0, 0.0, 2.0));
        let log_odds = |log_p: f64| log_p - (1.0 - log_p.exp()).ln();
        let expected = 0.5 - 0.2 * log_sigmoid(log_odds(-0.5) - log_odds(-1.5));
        assert!((loss - expected).abs() < 1e-5, "{loss} and {expected}");
    }

    #[test]
    fn certainty_stays_a_number() {
        let loss = loss_of(&Orpo { beta: 1.0 }, (0.0, 0.0, 1.0), (0.0, 0.0, 1.0));
        assert!(loss.is_finite(), "{loss}");
    }
}

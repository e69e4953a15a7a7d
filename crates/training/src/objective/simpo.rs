//! Simple preference optimisation (Meng et al. 2024).

use burn::tensor::{Tensor, activation};

use super::pairs::{Answers, PairLoss};

/// `−log σ(β·(mean log-probability of the better answer's tokens − of the worse one's) − γ)`.
pub(super) struct SimPo {
    pub(super) beta: f64,
    pub(super) gamma: f64,
}

impl PairLoss for SimPo {
    const HAS_REFERENCE: bool = false;

    fn reward(&self, answers: &Answers) -> Tensor<1> {
        answers.mean_log_prob() * self.beta
    }

    fn losses(&self, better: &Answers, worse: &Answers) -> Tensor<1> {
        let margin = self.reward(better) - self.reward(worse) - self.gamma;
        activation::log_sigmoid(margin).neg()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::tests::{log_sigmoid, loss_of};
    use super::*;

    #[test]
    fn it_is_the_papers_equation_6() {
        let loss = SimPo {
            beta: 2.0,
            gamma: 1.0,
        };
        let loss = loss_of(&loss, (-2.0, 0.0, 4.0), (-3.0, 0.0, 2.0));
        let expected = -log_sigmoid(2.0 * (-0.5 - -1.5) - 1.0);
        assert!((loss - expected).abs() < 1e-6, "{loss} and {expected}");
    }
}

//! Direct preference optimisation (Rafailov et al. 2023).

use burn::tensor::{Tensor, activation};

use super::pairs::{Answers, PairLoss};

/// `−log σ(β·(log-ratio of the better answer − log-ratio of the worse))`.
pub(super) struct Dpo {
    pub(super) beta: f64,
}

impl PairLoss for Dpo {
    const HAS_REFERENCE: bool = true;

    fn reward(&self, answers: &Answers) -> Tensor<1> {
        answers.log_ratio.clone() * self.beta
    }

    fn losses(&self, better: &Answers, worse: &Answers) -> Tensor<1> {
        activation::log_sigmoid(self.reward(better) - self.reward(worse)).neg()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::tests::{log_sigmoid, loss_of};
    use super::*;

    #[test]
    fn it_is_the_papers_equation_7() {
        let loss = loss_of(&Dpo { beta: 0.5 }, (-10.0, -12.0, 4.0), (-9.0, -8.0, 3.0));
        let expected = -log_sigmoid(0.5 * (2.0 - -1.0));
        assert!((loss - expected).abs() < 1e-6, "{loss} and {expected}");
    }
}

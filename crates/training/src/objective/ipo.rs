//! Identity preference optimisation (Azar et al. 2023).

use burn::tensor::Tensor;

use super::pairs::{Answers, PairLoss};

/// `(log-ratio of the better answer − log-ratio of the worse − 1/(2β))²`, log-ratios being a token's mean: sums, as the
/// paper writes them, would ask the same distance of long answers as of short ones, and its authors' code takes means.
pub(super) struct Ipo {
    pub(super) beta: f64,
}

impl PairLoss for Ipo {
    const HAS_REFERENCE: bool = true;

    fn reward(&self, answers: &Answers) -> Tensor<1> {
        answers.mean_log_ratio()
    }

    fn losses(&self, better: &Answers, worse: &Answers) -> Tensor<1> {
        let distance = self.reward(better) - self.reward(worse);
        (distance - 0.5 / self.beta).square()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::tests::loss_of;
    use super::*;

    #[test]
    fn it_is_the_papers_equation_17_with_means() {
        let loss = loss_of(&Ipo { beta: 0.25 }, (-10.0, -12.0, 4.0), (-9.0, -8.0, 2.0));
        let expected: f64 = (0.5 - -0.5 - 2.0_f64).powi(2);
        assert!((loss - expected).abs() < 1e-6, "{loss} and {expected}");
    }
}

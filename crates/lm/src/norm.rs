//! Root-mean-square normalisation.

use burn::tensor::Tensor;

/// `x / rms(x) · weight` over the last dimension.
#[derive(Debug, Clone)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Tensor<1>,
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    /// # Shapes
    /// `[..., width]` in and out.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mean_square = x.clone().square().mean_dim(D - 1);
        let rms = mean_square.add_scalar(self.epsilon).sqrt();
        x / rms * self.weight.clone().unsqueeze()
    }

    pub(crate) fn autodiff(&self) -> Self {
        Self {
            weight: self.weight.clone().autodiff(),
            epsilon: self.epsilon,
        }
    }
}

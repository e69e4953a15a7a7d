//! Root-mean-square normalisation.

use burn::tensor::Tensor;

use crate::ops::{Input, rms_norm};

/// `x / rms(x) · weight` over each row.
#[derive(Debug, Clone)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Tensor<1>,
    pub(crate) epsilon: f32,
}

impl RmsNorm {
    /// # Shapes
    /// `[n, width]` in and out.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, &self.weight, self.epsilon)
    }

    /// `x` as a layer reads it that normalises it first.
    pub(crate) fn input(&self, x: Tensor<2>) -> Input {
        Input::normed(x, &self.weight, self.epsilon)
    }

    pub(crate) fn autodiff(&self) -> Self {
        Self {
            weight: self.weight.clone().autodiff(),
            epsilon: self.epsilon,
        }
    }
}

//! Root-mean-square normalisation.

use burn::tensor::Tensor;

use crate::ops::{Input, rms_norm};

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
        rms_norm(x, &self.weight, self.epsilon)
    }

    /// `x` as a layer reads it that normalises it first.
    pub(crate) fn input(&self, x: Tensor<2>) -> Input {
        Input::Normed {
            x,
            weight: self.weight.clone(),
            epsilon: self.epsilon,
        }
    }

    pub(crate) fn autodiff(&self) -> Self {
        Self {
            weight: self.weight.clone().autodiff(),
            epsilon: self.epsilon,
        }
    }
}

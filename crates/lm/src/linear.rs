//! A linear layer with a frozen weight and an optional adapter.

use burn::tensor::Tensor;

use crate::device::n_threads;
use crate::lora::LoraSlot;

/// `y = x·Wᵀ + bias`, with W as Hugging Face stores it.
///
/// The CPU's matrix kernels take strides, so the transpose is a view: neither the forward nor the
/// backward pass copies W. W is not tracked, so no gradient of its size is ever made.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[out, in]`
    pub(crate) weight: Tensor<2>,
    pub(crate) bias: Option<Tensor<1>>,
}

impl Linear {
    /// # Shapes
    /// `x`: `[n_tokens, in]`; returns `[n_tokens, out]`.
    pub(crate) fn forward(&self, x: Tensor<2>, lora: Option<LoraSlot<'_>>) -> Tensor<2> {
        let mut y = project(x.clone(), &self.weight);
        if let Some(lora) = lora {
            y = y + lora.forward(x);
        }
        match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        }
    }

    pub(crate) fn autodiff(&self) -> Self {
        Self {
            weight: self.weight.clone().autodiff(),
            bias: self.bias.as_ref().map(|bias| bias.clone().autodiff()),
        }
    }
}

/// Below this many weights a second thread costs more than it brings.
const SPLIT_MIN_WEIGHTS: usize = 1 << 17;

/// `x·Wᵀ` without copying W.
///
/// A product with a single row is bound by reading W, and the matrix kernels give it one thread
/// only; halves of W are views, so two cores can read one each.
pub(crate) fn project(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let [n_tokens, n_in] = x.dims();
    let [n_out, _] = weight.dims();
    if n_tokens > 1 {
        return x.matmul(weight.clone().transpose());
    }
    let parts = n_threads(&x.device()).min(n_out * n_in / SPLIT_MIN_WEIGHTS);
    project_row(x, weight, n_out, parts)
}

/// Recursively halves the rows of W over `parts` threads.
fn project_row(x: Tensor<2>, weight: &Tensor<2>, n_out: usize, parts: usize) -> Tensor<2> {
    if parts < 2 {
        return x.matmul(weight.clone().transpose());
    }
    let (left, right) = (parts / 2, parts - parts / 2);
    let middle = n_out * left / parts;
    let (first, second) = rayon::join(
        || {
            project_row(
                x.clone(),
                &weight.clone().narrow(0, 0, middle),
                middle,
                left,
            )
        },
        || {
            let rest = n_out - middle;
            project_row(
                x.clone(),
                &weight.clone().narrow(0, middle, rest),
                rest,
                right,
            )
        },
    );
    Tensor::cat(vec![first, second], 1)
}

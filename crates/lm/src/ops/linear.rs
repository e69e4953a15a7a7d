//! A product with a matrix.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Dispatch};
use burn::tensor::Tensor;

use super::cpu::weight::{times_weight, times_weight_transposed};
use super::cpu::{dims, tensor};
use super::graph::unary;
use super::{FusedGradients, FusedOps, is_fused, learned};
use crate::precision::product;

/// `x·Wᵀ` without copying W.
///
/// # Shapes
/// `x`: `[n, d]`, `weight`: `[o, d]`; returns `[n, o]`.
pub(crate) fn linear(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    if !is_fused(&x) {
        return plain(x, weight);
    }
    if learned::learns(weight) {
        return learned::linear(x, weight);
    }
    Tensor::from_dispatch(Dispatch::frozen_linear(
        x.into_dispatch(),
        weight.clone().into_dispatch(),
    ))
}

/// The definition.
fn plain(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    product(x, weight)
}

pub(super) fn forward(x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let x = x.to_contiguous();
    let [n, _] = dims(&x);
    let (y, o) = times_weight_transposed(&x, weight);
    tensor(y, [n, o])
}

pub(super) fn backward(weight: &FlexTensor, gradient: &FlexTensor) -> FlexTensor {
    let gradient = gradient.to_contiguous();
    let ([n, _], [_, d]) = (dims(&gradient), dims(weight));
    tensor(times_weight(&gradient, weight), [n, d])
}

pub(super) fn differentiated<B: FusedOps + FusedGradients, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let weight = weight.into_primitive();
    unary::<B, C, _>(
        x,
        |x, tracked| {
            let kept = tracked.keep(|| weight.clone());
            (B::frozen_linear(x, weight), kept)
        },
        B::frozen_linear_backward,
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{agree, random};
    use super::*;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [n, d, o] in [[1, 16, 8], [33, 48, 40], [130, 64, 257], [200, 192, 576]] {
            let weight = random::<2>("weight", [o, d]).autodiff();
            agree(
                [random("x", [n, d])],
                |[x]| linear(x, &weight),
                |[x]| plain(x, &weight),
            );
        }
    }
}

//! A product with a matrix.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Dispatch, Flex};
use burn::tensor::Tensor;

use super::composed::{Composed, is_plain};
use super::cpu::weight::{times_weight, times_weight_transposed};
use super::cpu::{dims, tensor};
use super::graph::{OnGraph, unary};
use super::weight::Role;
use super::{FusedOps, WeightOn, learned};
use crate::weight::Weight;

/// `x·Wᵀ` without copying W.
///
/// # Shapes
/// `x`: `[n, d]`, `weight`: `[o, d]`; returns `[n, o]`.
pub(crate) fn linear(x: Tensor<2>, weight: &Weight) -> Tensor<2> {
    if is_plain(&x) {
        return plain(x, weight);
    }
    Tensor::from_dispatch(Dispatch::linear(x.into_dispatch(), weight.on_dispatch()))
}

/// The definition.
fn plain(x: Tensor<2>, weight: &Weight) -> Tensor<2> {
    weight.product(x)
}

pub(super) fn composed<B: Composed>(x: FloatTensor<B>, weight: WeightOn<B>) -> FloatTensor<B> {
    B::primitive(plain(B::tensor(x), &weight.weight()))
}

pub(super) fn forward(x: &FlexTensor, weight: &WeightOn<Flex>) -> FlexTensor {
    let x = x.to_contiguous();
    let [n, _] = dims(&x);
    let (y, o) = times_weight_transposed(&x, weight);
    tensor(y, [n, o])
}

pub(super) fn backward(weight: &WeightOn<Flex>, gradient: &FlexTensor) -> FlexTensor {
    let gradient = gradient.to_contiguous();
    let ([n, _], [_, d]) = (dims(&gradient), weight.dims());
    tensor(times_weight(&gradient, weight), [n, d])
}

pub(super) fn differentiated<C: CheckpointStrategy>(
    x: OnGraph,
    weight: WeightOn<Autodiff<Flex, C>>,
) -> OnGraph {
    let weight = match weight.role() {
        Role::Learned(weight) => return learned::linear::differentiated::<C>(x, weight),
        Role::Frozen(weight) => weight,
    };
    unary::<Flex, C, _>(
        x,
        |x, tracked| {
            let y = forward(&x, &weight);
            (y, tracked.keep(|| weight))
        },
        |weight, gradient| backward(&weight, &gradient),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{agree, agree_within, random};
    use super::*;
    use crate::blocks::testing::every_kind;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [n, d, o] in [[1, 16, 8], [33, 48, 40], [130, 64, 257], [200, 192, 576]] {
            let weight = Weight::Dense(random::<2>("weight", [o, d]).autodiff());
            agree(
                [random("x", [n, d])],
                |[x]| linear(x, &weight),
                |[x]| plain(x, &weight),
            );
        }
    }

    #[test]
    fn with_a_matrix_in_blocks_it_is_the_plain_one_but_for_rounding() {
        for [n, d, o] in [[1, 256, 40], [130, 96, 70]] {
            for blocks in every_kind(o, d) {
                let weight = Weight::Blocks(Arc::new(blocks));
                agree_within(
                    2e-2,
                    [random("x", [n, d])],
                    |[x]| linear(x, &weight),
                    |[x]| plain(x, &weight),
                );
            }
        }
    }
}

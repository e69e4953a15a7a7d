//! Operations whose weights learn: the same forward passes as with frozen ones, to the bit, and gradients of the weights
//! beside those of the input.
//!
//! They are chosen by the functions of the operations themselves, when the weight they are given is on a graph.

mod cross_entropy;
mod linear;
mod rms_norm;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Tensor};

use super::graph::binary;
use crate::profile::{Part, measure};

/// Whether these operations are to run: the weight is on a graph, in the only numbers that learn.
pub(super) fn learns<const D: usize>(weight: &Tensor<D>) -> bool {
    weight.is_tracked() && weight.dtype() == DType::F32
}

/// As [`super::linear`].
pub(super) fn linear(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let weight = weight.clone().into_dispatch();
    Tensor::from_dispatch(Dispatch::learned_linear(x.into_dispatch(), weight))
}

/// As [`super::rms_norm`].
pub(super) fn rms_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    epsilon: f32,
) -> Tensor<D> {
    let (x, weight) = (x.into_dispatch(), weight.clone().into_dispatch());
    Tensor::from_dispatch(Dispatch::learned_rms_norm(x, weight, epsilon))
}

/// As [`super::cross_entropy`].
pub(super) fn cross_entropy(
    hidden: Tensor<2>,
    head: &Tensor<2>,
    targets: &Arc<[u32]>,
) -> Tensor<2> {
    let (hidden, head) = (hidden.into_dispatch(), head.clone().into_dispatch());
    let targets = targets.clone();
    Tensor::from_dispatch(Dispatch::learned_cross_entropy(hidden, head, targets))
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait LearnedOps: Backend {
    fn learned_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    fn learned_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    fn learned_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Arc<[u32]>,
    ) -> FloatTensor<Self>;
}

/// An input and a weight, or whatever belongs to each of the two.
type Both<T> = [T; 2];

/// The backward passes: from input and weight, and the gradient of the result, to the gradients that are wanted.
pub(crate) trait LearnedGradients: Backend {
    fn learned_linear_backward(
        inputs: Both<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        wanted: Both<bool>,
    ) -> Both<Option<FloatTensor<Self>>>;

    fn learned_rms_norm_backward(
        inputs: Both<FloatTensor<Self>>,
        epsilon: f32,
        gradient: FloatTensor<Self>,
        wanted: Both<bool>,
    ) -> Both<Option<FloatTensor<Self>>>;

    fn learned_cross_entropy_backward(
        inputs: Both<FloatTensor<Self>>,
        targets: &[u32],
        gradient: FloatTensor<Self>,
        wanted: Both<bool>,
    ) -> Both<Option<FloatTensor<Self>>>;
}

impl LearnedOps for Flex {
    fn learned_linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        super::linear::forward(&x, &weight)
    }

    fn learned_rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> FlexTensor {
        super::rms_norm::forward(&x, &weight, epsilon)
    }

    fn learned_cross_entropy(
        hidden: FlexTensor,
        head: FlexTensor,
        targets: Arc<[u32]>,
    ) -> FlexTensor {
        measure(Part::Head, || {
            super::cross_entropy::forward(&hidden, &head, &targets)
        })
    }
}

impl LearnedGradients for Flex {
    fn learned_linear_backward(
        inputs: Both<FlexTensor>,
        gradient: FlexTensor,
        wanted: Both<bool>,
    ) -> Both<Option<FlexTensor>> {
        linear::backward(&inputs, &gradient, wanted)
    }

    fn learned_rms_norm_backward(
        inputs: Both<FlexTensor>,
        epsilon: f32,
        gradient: FlexTensor,
        wanted: Both<bool>,
    ) -> Both<Option<FlexTensor>> {
        rms_norm::backward(&inputs, epsilon, &gradient, wanted)
    }

    fn learned_cross_entropy_backward(
        inputs: Both<FlexTensor>,
        targets: &[u32],
        gradient: FlexTensor,
        wanted: Both<bool>,
    ) -> Both<Option<FlexTensor>> {
        measure(Part::Head, || {
            cross_entropy::backward(&inputs, targets, &gradient, wanted)
        })
    }
}

impl<B: LearnedOps + LearnedGradients, C: CheckpointStrategy> LearnedOps for Autodiff<B, C> {
    fn learned_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        binary::<B, C, _>(
            [x, weight],
            (),
            |[x, weight], ()| B::learned_linear(x, weight),
            |inputs, (), gradient, wanted| B::learned_linear_backward(inputs, gradient, wanted),
        )
    }

    fn learned_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        binary::<B, C, _>(
            [x, weight],
            epsilon,
            |[x, weight], epsilon| B::learned_rms_norm(x, weight, epsilon),
            B::learned_rms_norm_backward,
        )
    }

    fn learned_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Arc<[u32]>,
    ) -> FloatTensor<Self> {
        binary::<B, C, _>(
            [hidden, head],
            targets,
            |[hidden, head], targets| B::learned_cross_entropy(hidden, head, targets),
            |inputs, targets, gradient, wanted| {
                B::learned_cross_entropy_backward(inputs, &targets, gradient, wanted)
            },
        )
    }
}

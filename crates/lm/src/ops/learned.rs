//! Operations whose weights learn: the same forward passes as with frozen ones, to the bit, and gradients of the weights
//! beside those of the input.
//!
//! They are chosen by the functions of the operations themselves, when the weight they are given is on a graph.

mod cross_entropy;
mod linear;
mod rms_norm;
mod scale_columns;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use super::graph::binary;
use super::is_fused;
use crate::precision::cast;
use crate::profile::{Part, measure};

/// Whether these operations are to run: the weight is on a graph, in the only numbers that learn.
pub(crate) fn learns<const D: usize>(weight: &Tensor<D>) -> bool {
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

/// Each column of `y` times its factor.
///
/// # Shapes
/// `y`: `[n, width]`, `factors`: `[1, width]`; returns `[n, width]`.
pub(crate) fn scale_columns(y: Tensor<2>, factors: Tensor<2>) -> Tensor<2> {
    if !is_fused(&y) {
        let factors = cast(factors, y.dtype());
        return y * factors;
    }
    let (y, factors) = (y.into_dispatch(), factors.into_dispatch());
    Tensor::from_dispatch(Dispatch::scale_columns(y, factors))
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

    fn scale_columns(y: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// An input and a weight, or whatever belongs to each of the two.
type Both<T> = [T; 2];

/// What is kept of columns that were scaled.
#[derive(Debug, Clone)]
pub(crate) enum Scaled<T> {
    /// The result, which whatever reads it mostly keeps as well: the input is the result over the factors.
    Result { out: T, factors: T },
    /// The input, where a factor is too small to divide by.
    Input { y: T, factors: T },
}

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

    /// What to keep of an input, the result and the factors.
    fn scale_columns_kept(
        y: FloatTensor<Self>,
        out: FloatTensor<Self>,
        factors: FloatTensor<Self>,
    ) -> Scaled<FloatTensor<Self>>;

    fn scale_columns_backward(
        kept: Scaled<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        wanted: Both<bool>,
    ) -> Both<Option<FloatTensor<Self>>>;
}

impl LearnedOps for Flex {
    fn learned_linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        super::linear::forward(&x, &weight.into())
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
            super::cross_entropy::forward(&hidden, &head.into(), &targets)
        })
    }

    fn scale_columns(y: FlexTensor, factors: FlexTensor) -> FlexTensor {
        scale_columns::forward(&y, &factors)
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

    fn scale_columns_kept(
        y: FlexTensor,
        out: FlexTensor,
        factors: FlexTensor,
    ) -> Scaled<FlexTensor> {
        scale_columns::kept(y, out, &factors)
    }

    fn scale_columns_backward(
        kept: Scaled<FlexTensor>,
        gradient: FlexTensor,
        wanted: Both<bool>,
    ) -> Both<Option<FlexTensor>> {
        scale_columns::backward(&kept, &gradient, wanted)
    }
}

impl<B: LearnedOps + LearnedGradients, C: CheckpointStrategy> LearnedOps for Autodiff<B, C> {
    fn learned_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        binary::<B, C, _>(
            [x, weight],
            |[x, weight]| (B::learned_linear(x.clone(), weight.clone()), [x, weight]),
            B::learned_linear_backward,
        )
    }

    fn learned_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        binary::<B, C, _>(
            [x, weight],
            |[x, weight]| {
                let out = B::learned_rms_norm(x.clone(), weight.clone(), epsilon);
                (out, ([x, weight], epsilon))
            },
            |(inputs, epsilon), gradient, wanted| {
                B::learned_rms_norm_backward(inputs, epsilon, gradient, wanted)
            },
        )
    }

    fn learned_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Arc<[u32]>,
    ) -> FloatTensor<Self> {
        binary::<B, C, _>(
            [hidden, head],
            |[hidden, head]| {
                let inputs = [hidden.clone(), head.clone()];
                let out = B::learned_cross_entropy(hidden, head, targets.clone());
                (out, (inputs, targets))
            },
            |(inputs, targets), gradient, wanted| {
                B::learned_cross_entropy_backward(inputs, &targets, gradient, wanted)
            },
        )
    }

    fn scale_columns(y: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        binary::<B, C, _>(
            [y, factors],
            |[y, factors]| {
                let out = B::scale_columns(y.clone(), factors.clone());
                let kept = B::scale_columns_kept(y, out.clone(), factors);
                (out, kept)
            },
            B::scale_columns_backward,
        )
    }
}

/// Rows that a task adds up.
const ROWS: usize = 256;

/// What `add` adds up, column by column, of all rows of two matrices. The tasks' sums are added in order, so the result
/// does not depend on who made them.
fn sum_of_rows(
    [a, b]: Both<&[f32]>,
    width: usize,
    add: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let blocks = a.par_chunks(ROWS * width).zip(b.par_chunks(ROWS * width));
    let sums: Vec<_> = blocks
        .map(|(a, b)| {
            let mut sum = vec![0.0; width];
            add(a, b, &mut sum);
            sum
        })
        .collect();
    let mut total = vec![0.0; width];
    for sum in sums {
        for (total, sum) in total.iter_mut().zip(sum) {
            *total += sum;
        }
    }
    total
}

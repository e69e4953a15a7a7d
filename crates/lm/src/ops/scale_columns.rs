//! Columns of a matrix scaled apart from each other, by factors that learn.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, Flex};
use burn::tensor::Tensor;

use super::FusedOps;
use super::composed::{Composed, is_plain};
use super::cpu::vector::vectorized;
use super::cpu::{dims, rows, tensor, values};
use super::graph::{OnGraph, binary};
use super::learned::{Both, sum_of_rows};
use crate::precision::cast;
use crate::profile::{Part, measure};

/// Each column of `y` times its factor.
///
/// # Shapes
/// `y`: `[n, width]`, `factors`: `[1, width]`; returns `[n, width]`.
pub(crate) fn scale_columns(y: Tensor<2>, factors: Tensor<2>) -> Tensor<2> {
    if is_plain(&y) {
        return plain(y, factors);
    }
    let (y, factors) = (y.into_dispatch(), factors.into_dispatch());
    Tensor::from_dispatch(Dispatch::scale_columns(y, factors))
}

/// The definition.
fn plain(y: Tensor<2>, factors: Tensor<2>) -> Tensor<2> {
    let factors = cast(factors, y.dtype());
    y * factors
}

pub(super) fn composed<B: Composed>(y: FloatTensor<B>, factors: FloatTensor<B>) -> FloatTensor<B> {
    B::primitive(plain(B::tensor(y), B::tensor(factors)))
}

pub(super) fn forward(y: &FlexTensor, factors: &FlexTensor) -> FlexTensor {
    let (y, factors) = (y.to_contiguous(), factors.to_contiguous());
    let ([n, width], from) = (dims(&y), values(&y));
    let out = measure(Part::Lora, || {
        rows(n, width, |rows, out| {
            let y = &from[rows.start * width..rows.end * width];
            multiply_rows(y, values(&factors), out);
        })
    });
    tensor(out, [n, width])
}

/// A factor that the result can be divided by without losing the input.
const SMALLEST: f32 = 1e-12;

/// What is kept of columns that were scaled.
#[derive(Debug, Clone)]
enum Scaled {
    /// The result, which whatever reads it mostly keeps as well: the input is the result over the factors.
    Result {
        out: FlexTensor,
        factors: FlexTensor,
    },
    /// The input, where a factor is too small to divide by.
    Input { y: FlexTensor, factors: FlexTensor },
}

fn kept(y: FlexTensor, out: FlexTensor, factors: &FlexTensor) -> Scaled {
    let factors = factors.to_contiguous();
    if values(&factors)
        .iter()
        .all(|factor| factor.abs() >= SMALLEST)
    {
        Scaled::Result { out, factors }
    } else {
        Scaled::Input { y, factors }
    }
}

/// `dy = g·factors` and `dfactors = Σ g·y` over all rows, for a gradient g of the result.
fn backward(
    kept: &Scaled,
    gradient: &FlexTensor,
    [wants_y, wants_factors]: Both<bool>,
) -> Both<Option<FlexTensor>> {
    let (Scaled::Result {
        out: kept_columns,
        factors,
    }
    | Scaled::Input {
        y: kept_columns,
        factors,
    }) = kept;
    let d_y = wants_y.then(|| forward(gradient, factors));
    let d_factors = wants_factors.then(|| {
        let (columns, gradient) = (kept_columns.to_contiguous(), gradient.to_contiguous());
        let [_, width] = dims(&columns);
        let mut sums = measure(Part::Lora, || {
            sum_of_rows([values(&columns), values(&gradient)], width, add_rows)
        });
        if let Scaled::Result { .. } = kept {
            for (sum, factor) in sums.iter_mut().zip(values(factors)) {
                *sum /= factor;
            }
        }
        tensor(sums, [1, width])
    });
    [d_y, d_factors]
}

pub(super) fn differentiated<C: CheckpointStrategy>(y: OnGraph, factors: OnGraph) -> OnGraph {
    binary::<Flex, C, _>(
        [y, factors],
        |[y, factors]| {
            let out = forward(&y, &factors);
            let kept = kept(y, out.clone(), &factors);
            (out, kept)
        },
        |kept, gradient, wanted| backward(&kept, &gradient, wanted),
    )
}

vectorized! {
    fn multiply_rows(y: &[f32], factors: &[f32], out: &mut [f32]) {
        let width = factors.len();
        for (y, out) in y.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            for ((out, y), factor) in out.iter_mut().zip(y).zip(factors) {
                *out = y * factor;
            }
        }
    }

    fn add_rows(y: &[f32], gradient: &[f32], sum: &mut [f32]) {
        let width = sum.len();
        for (y, gradient) in y.chunks_exact(width).zip(gradient.chunks_exact(width)) {
            for ((sum, y), gradient) in sum.iter_mut().zip(y).zip(gradient) {
                *sum += gradient * y;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{agree, random, random_line};
    use super::*;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [n, width] in [[1, 16], [5, 48], [600, 576], [7, 33]] {
            agree(
                [random("y", [n, width]), random_line("factors", width)],
                |[y, factors]| scale_columns(y, factors),
                |[y, factors]| plain(y, factors),
            );
        }
    }

    #[test]
    fn a_factor_of_zero_has_a_gradient() {
        let y = random("y", [9, 8]);
        let factors = random_line("factors", 8);
        let factors = factors.clone() * factors.greater_elem(0.0).float();
        agree(
            [y, factors],
            |[y, factors]| scale_columns(y, factors),
            |[y, factors]| plain(y, factors),
        );
    }
}

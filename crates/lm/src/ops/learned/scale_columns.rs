//! Columns of a matrix scaled apart from each other, by factors that learn.

use burn::backend::flex::FlexTensor;

use super::{Both, Scaled, sum_of_rows};
use crate::ops::cpu::vector::vectorized;
use crate::ops::cpu::{dims, rows, tensor, values};
use crate::profile::{Part, measure};

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

pub(super) fn kept(y: FlexTensor, out: FlexTensor, factors: &FlexTensor) -> Scaled<FlexTensor> {
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
pub(super) fn backward(
    kept: &Scaled<FlexTensor>,
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
    use crate::ops::scale_columns;
    use crate::ops::testing::{agree, random, random_line};

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [n, width] in [[1, 16], [5, 48], [600, 576], [7, 33]] {
            agree(
                [random("y", [n, width]), random_line("factors", width)],
                |[y, factors]| scale_columns(y, factors),
                |[y, factors]| y * factors,
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
            |[y, factors]| y * factors,
        );
    }
}

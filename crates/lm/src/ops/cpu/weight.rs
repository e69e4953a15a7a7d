//! Products with a frozen weight matrix, in the precision it is kept in.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use half::bf16;

use super::bf16::{self as narrow, Kernel};
use super::matmul::{Matrix, product};
use super::{dims, values};
use crate::profile::{Part, measure};

/// `x·Wᵀ` and the number of its columns.
///
/// # Shapes
/// `x`: `[n, d]`, contiguous; `weight`: `[o, d]`, f32 or bf16; returns `[n, o]`.
pub(in crate::ops) fn times_weight_transposed(
    x: &FlexTensor,
    weight: &FlexTensor,
) -> (Vec<f32>, usize) {
    let ([_, d], [o, _]) = (dims(x), dims(weight));
    measure(Part::Matmul, || {
        if weight.dtype() == DType::BF16 {
            let weight = narrow_values(weight);
            let y = narrow::times_transposed(values(x), d, weight, Kernel::detect());
            return (y, o);
        }
        let weight = Matrix::new(values(weight), d).transposed();
        (product(Matrix::new(values(x), d), weight), o)
    })
}

/// `y·W`: the gradient of `x·Wᵀ` with respect to x.
///
/// # Shapes
/// `y`: `[n, o]`, contiguous; `weight`: `[o, d]`, f32 or bf16; returns `[n, d]`.
pub(in crate::ops) fn times_weight(y: &FlexTensor, weight: &FlexTensor) -> Vec<f32> {
    let ([_, o], [_, d]) = (dims(y), dims(weight));
    measure(Part::Matmul, || {
        if weight.dtype() == DType::BF16 {
            return narrow::times(values(y), o, narrow_values(weight), Kernel::detect());
        }
        product(Matrix::new(values(y), o), Matrix::new(values(weight), d))
    })
}

fn narrow_values(weight: &FlexTensor) -> &[bf16] {
    weight.as_slice::<bf16>().expect("weights are contiguous")
}

//! Products with a frozen weight matrix, in the precision it is kept in.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use half::bf16;

use super::bf16::{self as narrow, Kernel};
use super::matmul::{Into, Matrix, MatrixMut, matmul};
use super::{dims, values};

/// `x·Wᵀ` and the number of its columns.
///
/// # Shapes
/// `x`: `[n, d]`, contiguous; `weight`: `[o, d]`, f32 or bf16; returns `[n, o]`.
pub(in crate::ops) fn times_weight_transposed(
    x: &FlexTensor,
    weight: &FlexTensor,
) -> (Vec<f32>, usize) {
    let ([n, d], [o, _]) = (dims(x), dims(weight));
    if weight.dtype() == DType::BF16 {
        let y = narrow::times_transposed(values(x), d, narrow_values(weight), Kernel::detect());
        return (y, o);
    }
    let mut y = vec![0.0; n * o];
    matmul(
        MatrixMut::new(&mut y, o),
        Matrix::new(values(x), d),
        Matrix::new(values(weight), d).transposed(),
        Into::Overwrite,
    );
    (y, o)
}

/// `y·W`: the gradient of `x·Wᵀ` with respect to x.
///
/// # Shapes
/// `y`: `[n, o]`, contiguous; `weight`: `[o, d]`, f32 or bf16; returns `[n, d]`.
pub(in crate::ops) fn times_weight(y: &FlexTensor, weight: &FlexTensor) -> Vec<f32> {
    let ([n, o], [_, d]) = (dims(y), dims(weight));
    if weight.dtype() == DType::BF16 {
        return narrow::times(values(y), o, narrow_values(weight), Kernel::detect());
    }
    let mut x = vec![0.0; n * d];
    matmul(
        MatrixMut::new(&mut x, d),
        Matrix::new(values(y), o),
        Matrix::new(values(weight), d),
        Into::Overwrite,
    );
    x
}

fn narrow_values(weight: &FlexTensor) -> &[bf16] {
    weight.as_slice::<bf16>().expect("weights are contiguous")
}

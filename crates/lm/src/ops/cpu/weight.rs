//! Products with a frozen weight matrix, in the numbers or blocks it is kept in.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use half::bf16;

use super::bf16::{self as narrow, Dense, Kernel};
use super::matmul::{Matrix, product};
use super::{dims, values};
use crate::ops::Frozen;
use crate::profile::{Part, measure};

/// `x·Wᵀ` and the number of its columns.
///
/// # Shapes
/// `x`: `[n, d]`, contiguous; `weight`: `[o, d]`; returns `[n, o]`.
pub(in crate::ops) fn times_weight_transposed(
    x: &FlexTensor,
    weight: &Frozen<Flex>,
) -> (Vec<f32>, usize) {
    let ([_, d], [o, _]) = (dims(x), weight.dims());
    let (x, kernel) = (values(x), Kernel::detect());
    let y = measure(Part::Matmul, || match weight {
        Frozen::Blocks(blocks) => narrow::times_transposed(x, &**blocks, kernel),
        Frozen::Dense(weight) if weight.dtype() == DType::BF16 => {
            narrow::times_transposed(x, &Dense::new(narrow_values(weight), d), kernel)
        }
        Frozen::Dense(weight) => {
            let weight = Matrix::new(values(weight), d).transposed();
            product(Matrix::new(x, d), weight)
        }
    });
    (y, o)
}

/// `y·W`: the gradient of `x·Wᵀ` with respect to x.
///
/// # Shapes
/// `y`: `[n, o]`, contiguous; `weight`: `[o, d]`; returns `[n, d]`.
pub(in crate::ops) fn times_weight(y: &FlexTensor, weight: &Frozen<Flex>) -> Vec<f32> {
    let ([_, o], [_, d]) = (dims(y), weight.dims());
    let (y, kernel) = (values(y), Kernel::detect());
    measure(Part::Matmul, || match weight {
        Frozen::Blocks(blocks) => narrow::times(y, &**blocks, kernel),
        Frozen::Dense(weight) if weight.dtype() == DType::BF16 => {
            narrow::times(y, &Dense::new(narrow_values(weight), d), kernel)
        }
        Frozen::Dense(weight) => product(Matrix::new(y, o), Matrix::new(values(weight), d)),
    })
}

fn narrow_values(weight: &FlexTensor) -> &[bf16] {
    weight.as_slice::<bf16>().expect("weights are contiguous")
}

//! Products with a frozen weight matrix, in the numbers or blocks it is kept in.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use half::bf16;

use super::bf16::{self as narrow, Beside, Dense, Kernel, NarrowRows};
use super::matmul::{Matrix, product};
use super::{dims, values};
use crate::ops::WeightOn;
use crate::profile::{Part, measure};

/// `x·Wᵀ` and the number of its columns.
///
/// # Shapes
/// `x`: `[n, d]`, contiguous; `weight`: `[o, d]`; returns `[n, o]`.
pub(in crate::ops) fn times_weight_transposed(
    x: &FlexTensor,
    weight: &WeightOn<Flex>,
) -> (Vec<f32>, usize) {
    let ([_, d], [o, _]) = (dims(x), weight.dims());
    let (x, kernel) = (values(x), Kernel::detect());
    let y = measure(Part::Matmul, || match weight {
        WeightOn::Blocks(blocks) => narrow::times_transposed(x, &**blocks, kernel),
        WeightOn::Dense(weight) if weight.dtype() == DType::BF16 => {
            narrow::times_transposed(x, &Dense::new(narrow_values(weight), d), kernel)
        }
        WeightOn::Dense(weight) => {
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
pub(in crate::ops) fn times_weight(y: &FlexTensor, weight: &WeightOn<Flex>) -> Vec<f32> {
    let ([_, o], [_, d]) = (dims(y), weight.dims());
    let (y, kernel) = (values(y), Kernel::detect());
    measure(Part::Matmul, || match weight {
        WeightOn::Blocks(blocks) => narrow::times(y, &**blocks, kernel),
        WeightOn::Dense(weight) if weight.dtype() == DType::BF16 => {
            narrow::times(y, &Dense::new(narrow_values(weight), d), kernel)
        }
        WeightOn::Dense(weight) => product(Matrix::new(y, o), Matrix::new(values(weight), d)),
    })
}

/// The kernel whose products with `weight` take an adapter along, if there is one here.
pub(in crate::ops) fn kernel_beside(weight: &WeightOn<Flex>) -> Option<Kernel> {
    let is_wide = matches!(weight, WeightOn::Dense(weight) if weight.dtype() != DType::BF16);
    let kernel = Kernel::detect();
    (!is_wide && kernel != Kernel::Widen).then_some(kernel)
}

/// As [`Beside::forward`].
pub(in crate::ops) fn forward_beside(
    x: &FlexTensor,
    weight: &WeightOn<Flex>,
    beside: &Beside,
    kernel: Kernel,
) -> (Vec<f32>, Vec<f32>) {
    let [_, d] = weight.dims();
    let x = values(x);
    measure(Part::Matmul, || match weight {
        WeightOn::Blocks(blocks) => beside.forward(x, &**blocks, kernel),
        WeightOn::Dense(weight) => beside.forward(x, &Dense::new(narrow_values(weight), d), kernel),
    })
}

/// As [`Beside::backward`].
pub(in crate::ops) fn backward_beside(
    dy: &FlexTensor,
    weight: &WeightOn<Flex>,
    beside: &Beside,
    kernel: Kernel,
    wants_source: bool,
) -> (Vec<f32>, Vec<f32>, NarrowRows) {
    let [_, d] = weight.dims();
    let dy = values(dy);
    measure(Part::Matmul, || match weight {
        WeightOn::Blocks(blocks) => beside.backward(dy, &**blocks, kernel, wants_source),
        WeightOn::Dense(weight) => {
            let weight = Dense::new(narrow_values(weight), d);
            beside.backward(dy, &weight, kernel, wants_source)
        }
    })
}

fn narrow_values(weight: &FlexTensor) -> &[bf16] {
    weight.as_slice::<bf16>().expect("weights are contiguous")
}

//! What the CPU's operations share: tensors as slices, products of matrices, loops over wide vectors.

pub(crate) mod bf16;
pub(super) mod matmul;
pub(super) mod vector;
pub(super) mod weight;

use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;

/// Numbers that one task of a loop over rows takes at least: less costs more to hand out than to do.
const GRAIN: usize = 1 << 14;

/// The tensor's values, row after row.
///
/// # Panics
/// When it is not f32 or not contiguous: callers make it so with `to_contiguous`.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("activations are contiguous f32")
}

/// A tensor of these values.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Rows and columns of a matrix.
pub(super) fn dims(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1]]
}

/// How many rows of `width` numbers make a task.
pub(super) fn rows_per_task(width: usize) -> usize {
    GRAIN.div_ceil(width.max(1))
}

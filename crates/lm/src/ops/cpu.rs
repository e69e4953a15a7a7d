//! What the CPU's operations share: tensors as slices, products of matrices, loops over wide vectors.

pub(crate) mod bf16;
pub(super) mod matmul;
pub(crate) mod vector;
pub(super) mod weight;

use std::mem::MaybeUninit;
use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;
use rayon::prelude::*;

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

/// Rows of `width` numbers that `make` fills, several at a time, each task its own: it is given the rows' numbers and their
/// place, all zero.
pub(super) fn rows(
    n_rows: usize,
    width: usize,
    make: impl Fn(Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let n = n_rows * width;
    let per_task = GRAIN.div_ceil(width.max(1));
    let mut out = Vec::with_capacity(n);
    out.spare_capacity_mut()[..n]
        .par_chunks_mut((per_task * width).max(1))
        .enumerate()
        .for_each(|(task, out)| {
            // Here, where they stay in the cache until they are overwritten, and not all at once before.
            out.fill(MaybeUninit::new(0.0));
            #[expect(unsafe_code, reason = "every number was just written")]
            // SAFETY: as the line above shows.
            let out = unsafe { out.assume_init_mut() };
            let first = task * per_task;
            make(first..first + out.len() / width, out);
        });
    #[expect(unsafe_code, reason = "the tasks initialised every number")]
    // SAFETY: the chunks cover the first n numbers, and each task began by writing all of its own.
    unsafe {
        out.set_len(n);
    }
    out
}

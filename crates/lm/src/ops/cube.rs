//! What the GPU's operations share: tensors as kernels take them, a sum over a row.
//!
//! They are written in CubeCL, which compiles one source for CUDA and for Vulkan. Every kernel reads and writes the
//! activations' own numbers, f32 or bf16, and computes in f32.

use burn::backend::Shape;
use burn::backend::cubecl::dtype_to_elem_type;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// A tensor to be written: of the numbers and on the device of `like`, its rows one behind the other.
pub(super) fn empty_like(like: &CubeTensor, shape: Shape) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, shape, like.dtype)
}

/// The numbers that the tensor is made of.
pub(super) fn elements(tensor: &CubeTensor) -> ElemType {
    dtype_to_elem_type(tensor.dtype)
}

/// The sum of `value` over the `units` units of a cube, a power of two; every one of them gets it.
#[cube]
pub(super) fn sum_over_cube(value: f32, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    let mut partial = Shared::<[f32]>::new_slice(units);
    partial[unit] = value;
    sync_cube();
    #[unroll]
    for level in 1..=comptime!(units.ilog2() as usize) {
        let half = comptime!(units >> level);
        if unit < half {
            partial[unit] += partial[unit + half];
        }
        sync_cube();
    }
    partial[0]
}

#[cfg(test)]
#[cfg(feature = "cuda")]
mod cuda_source;

//! What the GPU's operations share: tensors as kernels take them, a sum over a row.
//!
//! They are written in CubeCL, which compiles one source for CUDA and for Vulkan. Every kernel reads and writes the
//! activations' own numbers, f32 or bf16, and computes in f32.

#[cfg(test)]
#[cfg(feature = "cuda")]
mod cuda_source;
mod row_kernels;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Cube, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::composed::Composed;
use super::graph::unary;
use super::{FusedOps, rms_norm};
use row_kernels::RowKernels;

/// A tensor of the backend, which is one of burn's fusion where that is built in.
type CubeFloat = FloatTensor<Cube>;
/// One whose operations are recorded.
type OnGraph = FloatTensor<Autodiff<Cube>>;

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

/// The norm and the activation have kernels, with weights that stay; the rest is composed.
impl FusedOps for Cube {
    fn rms_norm(x: CubeFloat, weight: CubeFloat, epsilon: f32) -> CubeFloat {
        Self::rms_norm_kernel(x, weight, epsilon)
    }

    fn swiglu(gate_up: CubeFloat) -> CubeFloat {
        Self::swiglu_kernel(gate_up)
    }
}

impl<C: CheckpointStrategy> FusedOps for Autodiff<Cube, C>
where
    Self: Composed<FloatTensorPrimitive = OnGraph>,
{
    fn rms_norm(x: OnGraph, weight: OnGraph, epsilon: f32) -> OnGraph {
        if weight.is_tracked() {
            return rms_norm::composed::<Self>(x, weight, epsilon);
        }
        let weight = weight.into_primitive();
        unary::<Cube, C, _>(
            x,
            |x, tracked| {
                let kept = tracked.keep(|| (x.clone(), weight.clone(), epsilon));
                (Cube::rms_norm_kernel(x, weight, epsilon), kept)
            },
            |(x, weight, epsilon), gradient| {
                Cube::rms_norm_backward_kernel(x, weight, epsilon, gradient)
            },
        )
    }

    fn swiglu(gate_up: OnGraph) -> OnGraph {
        unary::<Cube, C, _>(
            gate_up,
            |gate_up, tracked| {
                let kept = tracked.keep(|| gate_up.clone());
                (Cube::swiglu_kernel(gate_up), kept)
            },
            Cube::swiglu_backward_kernel,
        )
    }
}

//! The kernels as operations of the backend. burn's fusion, where it is built in, records them as it does its own and launches
//! them later.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use crate::ops::{rms_norm, swiglu};

#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub(super) trait RowKernels: Backend {
    #[fusion(dtype = x, shape = x)]
    fn rms_norm_kernel(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = x, shape = x)]
    fn rms_norm_backward_kernel(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = gate_up, shape = { let [n, both] = gate_up.dims(); [n, both / 2].into() })]
    fn swiglu_kernel(gate_up: FloatTensor<Self>) -> FloatTensor<Self>;

    #[fusion(dtype = gate_up, shape = gate_up)]
    fn swiglu_backward_kernel(
        gate_up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl RowKernels for CubeBackend {
    fn rms_norm_kernel(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
        rms_norm::cube::forward(x, weight, epsilon)
    }

    fn rms_norm_backward_kernel(
        x: CubeTensor,
        weight: CubeTensor,
        epsilon: f32,
        gradient: CubeTensor,
    ) -> CubeTensor {
        rms_norm::cube::backward(x, weight, epsilon, gradient)
    }

    fn swiglu_kernel(gate_up: CubeTensor) -> CubeTensor {
        swiglu::cube::forward(gate_up)
    }

    fn swiglu_backward_kernel(gate_up: CubeTensor, gradient: CubeTensor) -> CubeTensor {
        swiglu::cube::backward(gate_up, gradient)
    }
}

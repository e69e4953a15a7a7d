//! The operations on rows: those that have kernels on the CPU and, with the feature `cube`, on GPUs.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
#[cfg(feature = "cube")]
use burn_cubecl::CubeBackend;
#[cfg(feature = "cube")]
use burn_cubecl::tensor::CubeTensor;

use super::{rms_norm, swiglu};

/// The operations, as the functions of the same names define them.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"), Autodiff)]
pub(crate) trait RowOps: Backend {
    #[fusion(dtype = x, shape = x)]
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32)
    -> FloatTensor<Self>;

    #[fusion(dtype = gate_up, shape = { let [n, both] = gate_up.dims(); [n, both / 2].into() })]
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// What their backward passes are made of. No graph is recorded over these.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait RowGradients: Backend {
    #[fusion(dtype = x, shape = x)]
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = gate_up, shape = gate_up)]
    fn swiglu_backward(
        gate_up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl RowOps for Flex {
    fn rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> FlexTensor {
        rms_norm::forward(&x, &weight, epsilon)
    }

    fn swiglu(gate_up: FlexTensor) -> FlexTensor {
        swiglu::forward(&gate_up)
    }
}

impl RowGradients for Flex {
    fn rms_norm_backward(
        x: FlexTensor,
        weight: FlexTensor,
        epsilon: f32,
        gradient: FlexTensor,
    ) -> FlexTensor {
        rms_norm::backward(&x, &weight, epsilon, &gradient)
    }

    fn swiglu_backward(gate_up: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        swiglu::backward(&gate_up, &gradient)
    }
}

#[cfg(feature = "cube")]
impl RowOps for CubeBackend {
    fn rms_norm(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
        rms_norm::cube::forward(x, weight, epsilon)
    }

    fn swiglu(gate_up: CubeTensor) -> CubeTensor {
        swiglu::cube::forward(gate_up)
    }
}

#[cfg(feature = "cube")]
impl RowGradients for CubeBackend {
    fn rms_norm_backward(
        x: CubeTensor,
        weight: CubeTensor,
        epsilon: f32,
        gradient: CubeTensor,
    ) -> CubeTensor {
        rms_norm::cube::backward(x, weight, epsilon, gradient)
    }

    fn swiglu_backward(gate_up: CubeTensor, gradient: CubeTensor) -> CubeTensor {
        swiglu::cube::backward(gate_up, gradient)
    }
}

impl<B: RowOps + RowGradients, C: CheckpointStrategy> RowOps for Autodiff<B, C> {
    fn rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        rms_norm::differentiated::<B, C>(x, weight, epsilon)
    }

    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::differentiated::<B, C>(gate_up)
    }
}

//! How an operation becomes a composition of tensor operations on whichever backend it was asked of.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchKindConversion, DispatchTensor, Flex};
use burn::tensor::{DType, Tensor};

use crate::device::is_cpu;

/// A backend whose tensors the model's can be.
pub(crate) trait Composed: Backend {
    fn tensor<const D: usize>(primitive: FloatTensor<Self>) -> Tensor<D>;

    fn primitive<const D: usize>(tensor: Tensor<D>) -> FloatTensor<Self>;
}

/// The backend of all others, whose tensors the model's are.
impl Composed for Dispatch {
    fn tensor<const D: usize>(primitive: DispatchTensor) -> Tensor<D> {
        Tensor::from_dispatch(primitive)
    }

    fn primitive<const D: usize>(tensor: Tensor<D>) -> DispatchTensor {
        tensor.into_dispatch()
    }
}

macro_rules! composed {
    ($backend:ty $(, $strategy:ident)?) => {
        impl $(<$strategy: CheckpointStrategy>)? Composed for $backend
        where
            DispatchTensor: DispatchKindConversion<$backend>,
        {
            fn tensor<const D: usize>(primitive: FloatTensor<Self>) -> Tensor<D> {
                Tensor::from_primitive::<Self>(primitive)
            }

            fn primitive<const D: usize>(tensor: Tensor<D>) -> FloatTensor<Self> {
                let primitive = tensor.try_into_primitive::<Self>();
                primitive.expect("a composition stays on its backend")
            }
        }
    };
}

composed!(Flex);
composed!(Autodiff<Flex, C>, C);
#[cfg(feature = "cube")]
composed!(burn::backend::Cube);
#[cfg(feature = "cube")]
composed!(Autodiff<burn::backend::Cube, C>, C);

/// Whether the definition is to run whatever the backend has: the CPU's operations know no other activations than f32.
pub(super) fn is_plain<const D: usize>(tensor: &Tensor<D>) -> bool {
    #[cfg(test)]
    if super::testing::is_plain() {
        return true;
    }
    is_cpu(&tensor.device()) && tensor.dtype() != DType::F32
}

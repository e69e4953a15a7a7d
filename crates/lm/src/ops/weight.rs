//! A matrix of the model, as the operations take it: a tensor of the backend, or blocks in host memory.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, ExtensionType, Flex, TensorMetadata};
use burn::tensor::DType;

use super::composed::Composed;
use super::cpu::dims;
use super::graph::OnGraph;
use crate::blocks::Blocks;
use crate::weight::Weight;

/// A matrix on a backend. `[o, d]`
#[derive(Debug, Clone, ExtensionType)]
pub(crate) enum WeightOn<B: Backend> {
    /// In f32 or bf16.
    Dense(FloatTensor<B>),
    Blocks(Arc<Blocks>),
}

impl<B: Composed> WeightOn<B> {
    /// The matrix among the model's tensors.
    pub(super) fn weight(self) -> Weight {
        match self {
            Self::Dense(weight) => Weight::Dense(B::tensor(weight)),
            Self::Blocks(blocks) => Weight::Blocks(blocks),
        }
    }
}

/// A matrix on the graph, by whether it has a gradient.
pub(super) enum Role {
    Learned(OnGraph),
    Frozen(WeightOn<Flex>),
}

impl<C: CheckpointStrategy> WeightOn<Autodiff<Flex, C>> {
    pub(super) fn role(self) -> Role {
        match self {
            Self::Dense(weight) if learns(&weight) => Role::Learned(weight),
            frozen => Role::Frozen(frozen.inner()),
        }
    }

    pub(super) fn learns(&self) -> bool {
        matches!(self, Self::Dense(weight) if learns(weight))
    }

    /// The matrix below the graph.
    pub(super) fn inner(self) -> WeightOn<Flex> {
        match self {
            Self::Dense(weight) => WeightOn::Dense(weight.into_primitive()),
            Self::Blocks(blocks) => WeightOn::Blocks(blocks),
        }
    }
}

/// Whether a weight has a gradient, which those in f32 alone can have.
pub(super) fn learns(weight: &OnGraph) -> bool {
    weight.is_tracked() && weight.dtype() == DType::F32
}

impl WeightOn<Flex> {
    pub(super) fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => dims(weight),
            Self::Blocks(blocks) => blocks.dims(),
        }
    }
}

impl From<FlexTensor> for WeightOn<Flex> {
    fn from(weight: FlexTensor) -> Self {
        Self::Dense(weight)
    }
}

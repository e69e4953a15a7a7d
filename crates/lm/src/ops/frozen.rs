//! A frozen matrix, as the operations take it: a tensor of the backend, or blocks in host memory.

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, Flex};

use super::cpu::dims;
use crate::blocks::Blocks;

/// A matrix without a gradient. `[o, d]`
#[derive(Debug, Clone, ExtensionType)]
pub(crate) enum Frozen<B: Backend> {
    /// In f32 or bf16.
    Dense(FloatTensor<B>),
    Blocks(Arc<Blocks>),
}

/// A matrix of whichever backend.
pub(crate) type FrozenMatrix = Frozen<Dispatch>;

impl<B: Backend, C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy>
    Frozen<Autodiff<B, C>>
{
    /// The matrix below the graph.
    pub(super) fn inner(self) -> Frozen<B> {
        match self {
            Self::Dense(weight) => Frozen::Dense(weight.into_primitive()),
            Self::Blocks(blocks) => Frozen::Blocks(blocks),
        }
    }
}

impl Frozen<Flex> {
    pub(super) fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => dims(weight),
            Self::Blocks(blocks) => blocks.dims(),
        }
    }
}

impl From<FlexTensor> for Frozen<Flex> {
    fn from(weight: FlexTensor) -> Self {
        Self::Dense(weight)
    }
}

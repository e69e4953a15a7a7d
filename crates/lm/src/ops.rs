//! The operations that a training step spends its time in, behind one extension of burn's backends.
//!
//! [`FusedOps`] says what they are. What a method does by default is a composition of tensor operations, which runs on
//! every device and is the definition; the CPU has one pass of its own for each of them and a backward pass written by
//! hand, GPUs have kernels for the norm and the activation. Each file holds one operation: first the function that the model
//! calls, then `plain`, the definition, then what the CPU runs instead; a file `cube.rs` beside it holds what GPUs run.
//! Tests hold all of them together, values and gradients.

#![expect(clippy::many_single_char_names, reason = "the equations' own names")]
#![expect(
    clippy::inline_always,
    reason = "or a loop is compiled for the narrowest vectors"
)]

mod attention;
mod composed;
pub(crate) mod cpu;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
mod graph;
mod kl_divergence;
mod learned;
mod linear;
mod lora_linear;
mod rms_norm;
mod scale_columns;
mod swiglu;
#[cfg(test)]
pub(crate) mod testing;
mod weight;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, backend_extension};

use crate::attention::RaggedAttention;
use composed::Composed;
use graph::OnGraph;

pub(crate) use attention::attention;
pub(crate) use cpu::bf16::Kernel;
pub(crate) use cross_entropy::cross_entropy;
pub(crate) use kl_divergence::kl_divergence;
pub(crate) use linear::linear;
pub(crate) use lora_linear::{Input, LoraPart, LoraPlan, Source, lora_linear};
pub(crate) use rms_norm::rms_norm;
pub(crate) use scale_columns::scale_columns;
pub(crate) use swiglu::swiglu;
pub(crate) use weight::WeightOn;

/// The operations, as the functions of the same names define them. What a backend does not do in its own way it composes of
/// its tensor operations.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait FusedOps: Composed {
    fn attention(qkv: FloatTensor<Self>, plan: Arc<RaggedAttention>) -> FloatTensor<Self> {
        attention::composed::<Self>(qkv, &plan)
    }

    fn linear(x: FloatTensor<Self>, #[extension_type] weight: WeightOn<Self>) -> FloatTensor<Self> {
        linear::composed::<Self>(x, weight)
    }

    fn lora_linear(
        #[extension_type] source: Source<Self>,
        #[extension_type] weight: WeightOn<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        plan: Arc<LoraPlan>,
    ) -> FloatTensor<Self> {
        lora_linear::composed::<Self>(source, weight, [a, b], &plan)
    }

    fn rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        rms_norm::composed::<Self>(x, weight, epsilon)
    }

    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        swiglu::composed::<Self>(gate_up)
    }

    fn cross_entropy(
        hidden: FloatTensor<Self>,
        #[extension_type] head: WeightOn<Self>,
        targets: Arc<[u32]>,
    ) -> FloatTensor<Self> {
        cross_entropy::composed::<Self>(hidden, head, &targets)
    }

    fn kl_divergence(
        hidden: FloatTensor<Self>,
        reference: FloatTensor<Self>,
        #[extension_type] head: WeightOn<Self>,
    ) -> FloatTensor<Self> {
        kl_divergence::composed::<Self>(hidden, reference, head)
    }

    fn scale_columns(y: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        scale_columns::composed::<Self>(y, factors)
    }
}

impl FusedOps for Flex {
    fn attention(qkv: FlexTensor, plan: Arc<RaggedAttention>) -> FlexTensor {
        attention::forward(&qkv, &plan)
    }

    fn linear(x: FlexTensor, weight: WeightOn<Self>) -> FlexTensor {
        linear::forward(&x, &weight)
    }

    fn lora_linear(
        source: Source<Self>,
        weight: WeightOn<Self>,
        a: FlexTensor,
        b: FlexTensor,
        plan: Arc<LoraPlan>,
    ) -> FlexTensor {
        lora_linear::forward(&source, &weight, &a, &b, &plan).0
    }

    fn rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f32) -> FlexTensor {
        rms_norm::forward(&x, &weight, epsilon)
    }

    fn swiglu(gate_up: FlexTensor) -> FlexTensor {
        swiglu::forward(&gate_up)
    }

    fn cross_entropy(hidden: FlexTensor, head: WeightOn<Self>, targets: Arc<[u32]>) -> FlexTensor {
        cross_entropy::forward(&hidden, &head, &targets)
    }

    fn kl_divergence(
        hidden: FlexTensor,
        reference: FlexTensor,
        head: WeightOn<Self>,
    ) -> FlexTensor {
        kl_divergence::forward(&hidden, &reference, &head)
    }

    fn scale_columns(y: FlexTensor, factors: FlexTensor) -> FlexTensor {
        scale_columns::forward(&y, &factors)
    }
}

/// With backward passes written by hand.
impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C>
where
    Self: Composed<FloatTensorPrimitive = OnGraph>,
{
    fn attention(qkv: OnGraph, plan: Arc<RaggedAttention>) -> OnGraph {
        attention::differentiated::<C>(qkv, plan)
    }

    fn linear(x: OnGraph, weight: WeightOn<Self>) -> OnGraph {
        linear::differentiated::<C>(x, weight)
    }

    fn lora_linear(
        source: Source<Self>,
        weight: WeightOn<Self>,
        a: OnGraph,
        b: OnGraph,
        plan: Arc<LoraPlan>,
    ) -> OnGraph {
        if weight.learns() {
            return lora_linear::composed::<Self>(source, weight, [a, b], &plan);
        }
        lora_linear::differentiated::<C>(source, weight, [a, b], plan)
    }

    fn rms_norm(x: OnGraph, weight: OnGraph, epsilon: f32) -> OnGraph {
        rms_norm::differentiated::<C>(x, weight, epsilon)
    }

    fn swiglu(gate_up: OnGraph) -> OnGraph {
        swiglu::differentiated::<C>(gate_up)
    }

    fn cross_entropy(hidden: OnGraph, head: WeightOn<Self>, targets: Arc<[u32]>) -> OnGraph {
        cross_entropy::differentiated::<C>(hidden, head, targets)
    }

    fn kl_divergence(hidden: OnGraph, reference: OnGraph, head: WeightOn<Self>) -> OnGraph {
        if head.learns() {
            return kl_divergence::composed::<Self>(hidden, reference, head);
        }
        kl_divergence::differentiated::<C>(hidden, reference, head)
    }

    fn scale_columns(y: OnGraph, factors: OnGraph) -> OnGraph {
        scale_columns::differentiated::<C>(y, factors)
    }
}

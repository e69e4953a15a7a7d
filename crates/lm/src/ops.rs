//! The operations that a training step spends its time in, behind one extension of burn's backends.
//!
//! Each file holds one: first the function that the model calls, then `plain`, a composition of tensor operations that
//! runs on every device and is the definition, then what runs on the CPU instead, its backward pass written by hand. The
//! operations of [`row_ops`] have a file `cube.rs` beside them with what runs on GPUs. Tests hold all of them together,
//! values and gradients. Weights are frozen but for those of `learned`.

#![expect(clippy::many_single_char_names, reason = "the equations' own names")]
#![expect(
    clippy::inline_always,
    reason = "or a loop is compiled for the narrowest vectors"
)]

mod attention;
pub(crate) mod cpu;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
mod frozen;
mod graph;
mod kl_divergence;
mod learned;
mod linear;
mod lora_linear;
mod rms_norm;
mod row_ops;
mod swiglu;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use burn::tensor::{DType, Tensor};

use crate::attention::RaggedAttention;
use crate::device::is_cpu;
use crate::profile::{Part, measure};

pub(crate) use attention::attention;
pub(crate) use cpu::bf16::Kernel;
pub(crate) use cross_entropy::cross_entropy;
pub(crate) use frozen::{Frozen, FrozenMatrix};
pub(crate) use kl_divergence::kl_divergence;
pub(crate) use learned::{learns, scale_columns};
pub(crate) use linear::linear;
pub(crate) use lora_linear::{Input, LoraPart, LoraPlan, LoraState, Source, lora_linear};
pub(crate) use rms_norm::rms_norm;
pub(crate) use swiglu::swiglu;

/// Whether the CPU's operations take the tensor: they know no other activations than f32.
fn is_fused<const D: usize>(tensor: &Tensor<D>) -> bool {
    #[cfg(test)]
    if testing::is_plain() {
        return false;
    }
    is_cpu(&tensor.device()) && tensor.dtype() == DType::F32
}

/// Whether the operations of [`row_ops`] take the tensor.
fn has_row_ops<const D: usize>(tensor: &Tensor<D>) -> bool {
    is_fused(tensor) || (cfg!(feature = "cube") && !is_cpu(&tensor.device()))
}

/// The operations that are fused on the CPU alone, as the functions of about the same names define them.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait FusedOps: Backend {
    fn ragged_attention(qkv: FloatTensor<Self>, plan: Arc<RaggedAttention>) -> FloatTensor<Self>;

    fn frozen_linear(
        x: FloatTensor<Self>,
        #[extension_type] weight: Frozen<Self>,
    ) -> FloatTensor<Self>;

    fn lora_linear(
        x: FloatTensor<Self>,
        #[extension_type] weight: Frozen<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        plan: Arc<LoraPlan>,
    ) -> FloatTensor<Self>;

    fn normed_lora_linear(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        epsilon: f32,
        #[extension_type] weight: Frozen<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        plan: Arc<LoraPlan>,
    ) -> FloatTensor<Self>;

    fn gated_lora_linear(
        gate_up: FloatTensor<Self>,
        #[extension_type] weight: Frozen<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        plan: Arc<LoraPlan>,
    ) -> FloatTensor<Self>;

    fn cross_entropy(
        hidden: FloatTensor<Self>,
        #[extension_type] head: Frozen<Self>,
        targets: Arc<[u32]>,
    ) -> FloatTensor<Self>;
}

/// What the backward passes are made of. No graph is recorded over these.
pub(crate) trait FusedGradients: Backend {
    fn ragged_attention_backward(
        qkv: FloatTensor<Self>,
        plan: Arc<RaggedAttention>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    fn frozen_linear_backward(
        weight: Frozen<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The result and what the backward pass needs of it.
    fn lora_linear_forward(
        source: &Source<FloatTensor<Self>>,
        weight: &Frozen<Self>,
        a: &FloatTensor<Self>,
        b: &FloatTensor<Self>,
        plan: &LoraPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// What to keep of a source for the backward pass.
    fn lora_linear_kept(
        source: Source<FloatTensor<Self>>,
        weight: &Frozen<Self>,
    ) -> Source<FloatTensor<Self>>;

    /// The gradients of the source if it is wanted, of `a` and of `b`.
    fn lora_linear_backward(
        state: LoraState<Self>,
        gradient: FloatTensor<Self>,
        wants_source: bool,
    ) -> (
        Option<FloatTensor<Self>>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    );

    /// The result and the gradient of `hidden` for a gradient of 1.
    fn cross_entropy_with_gradient(
        hidden: &FloatTensor<Self>,
        head: &Frozen<Self>,
        targets: &[u32],
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    fn cross_entropy_backward(
        d_hidden: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl FusedOps for Flex {
    fn ragged_attention(qkv: FlexTensor, plan: Arc<RaggedAttention>) -> FlexTensor {
        measure(Part::Attention, || attention::forward(&qkv, &plan))
    }

    fn frozen_linear(x: FlexTensor, weight: Frozen<Self>) -> FlexTensor {
        linear::forward(&x, &weight)
    }

    fn lora_linear(
        x: FlexTensor,
        weight: Frozen<Self>,
        a: FlexTensor,
        b: FlexTensor,
        plan: Arc<LoraPlan>,
    ) -> FlexTensor {
        lora_linear::forward(&Source::Given(x), &weight, &a, &b, &plan).0
    }

    fn normed_lora_linear(
        x: FlexTensor,
        norm: FlexTensor,
        epsilon: f32,
        weight: Frozen<Self>,
        a: FlexTensor,
        b: FlexTensor,
        plan: Arc<LoraPlan>,
    ) -> FlexTensor {
        let source = Source::Normed {
            x,
            weight: norm,
            epsilon,
        };
        lora_linear::forward(&source, &weight, &a, &b, &plan).0
    }

    fn gated_lora_linear(
        gate_up: FlexTensor,
        weight: Frozen<Self>,
        a: FlexTensor,
        b: FlexTensor,
        plan: Arc<LoraPlan>,
    ) -> FlexTensor {
        lora_linear::forward(&Source::Gated(gate_up), &weight, &a, &b, &plan).0
    }

    fn cross_entropy(hidden: FlexTensor, head: Frozen<Self>, targets: Arc<[u32]>) -> FlexTensor {
        measure(Part::Head, || {
            cross_entropy::forward(&hidden, &head, &targets)
        })
    }
}

impl FusedGradients for Flex {
    fn ragged_attention_backward(
        qkv: FlexTensor,
        plan: Arc<RaggedAttention>,
        gradient: FlexTensor,
    ) -> FlexTensor {
        measure(Part::Attention, || {
            attention::backward(&qkv, &plan, &gradient)
        })
    }

    fn frozen_linear_backward(weight: Frozen<Self>, gradient: FlexTensor) -> FlexTensor {
        linear::backward(&weight, &gradient)
    }

    fn lora_linear_forward(
        source: &Source<FlexTensor>,
        weight: &Frozen<Self>,
        a: &FlexTensor,
        b: &FlexTensor,
        plan: &LoraPlan,
    ) -> (FlexTensor, FlexTensor) {
        lora_linear::forward(source, weight, a, b, plan)
    }

    fn lora_linear_kept(source: Source<FlexTensor>, weight: &Frozen<Self>) -> Source<FlexTensor> {
        source.kept(weight)
    }

    fn lora_linear_backward(
        state: LoraState<Self>,
        gradient: FlexTensor,
        wants_source: bool,
    ) -> (Option<FlexTensor>, FlexTensor, FlexTensor) {
        lora_linear::backward(&state, &gradient, wants_source)
    }

    fn cross_entropy_with_gradient(
        hidden: &FlexTensor,
        head: &Frozen<Self>,
        targets: &[u32],
    ) -> (FlexTensor, FlexTensor) {
        measure(Part::Head, || {
            cross_entropy::forward_with_gradient(hidden, head, targets)
        })
    }

    fn cross_entropy_backward(d_hidden: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        cross_entropy::backward(&d_hidden, &gradient)
    }
}

impl<B: FusedOps + FusedGradients, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn ragged_attention(qkv: FloatTensor<Self>, plan: Arc<RaggedAttention>) -> FloatTensor<Self> {
        attention::differentiated::<B, C>(qkv, plan)
    }

    fn frozen_linear(x: FloatTensor<Self>, weight: Frozen<Self>) -> FloatTensor<Self> {
        linear::differentiated::<B, C>(x, weight)
    }

    fn lora_linear(
        x: FloatTensor<Self>,
        weight: Frozen<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        plan: Arc<LoraPlan>,
    ) -> FloatTensor<Self> {
        lora_linear::differentiated::<B, C>(Source::Given(x), weight, a, b, plan)
    }

    fn normed_lora_linear(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        epsilon: f32,
        weight: Frozen<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        plan: Arc<LoraPlan>,
    ) -> FloatTensor<Self> {
        let source = Source::Normed {
            x,
            weight: norm,
            epsilon,
        };
        lora_linear::differentiated::<B, C>(source, weight, a, b, plan)
    }

    fn gated_lora_linear(
        gate_up: FloatTensor<Self>,
        weight: Frozen<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        plan: Arc<LoraPlan>,
    ) -> FloatTensor<Self> {
        lora_linear::differentiated::<B, C>(Source::Gated(gate_up), weight, a, b, plan)
    }

    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: Frozen<Self>,
        targets: Arc<[u32]>,
    ) -> FloatTensor<Self> {
        cross_entropy::differentiated::<B, C>(hidden, head, targets)
    }
}

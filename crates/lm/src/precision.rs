//! Which numbers the base model is kept and multiplied in.

use burn::tensor::{DType, Tensor};

/// What the base model's matrices are kept in and, on GPUs, the activations. All sums, norms, losses, the adapter and what
/// trains it are 32-bit in any case; on the CPU the activations are too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit brain floats: half the memory, and several times as fast on hardware that multiplies them.
    Bf16,
    /// Four-bit normal floats, quantised at load with quantised scales: 4.13 bits a number, as QLoRA has it. Embedding and
    /// head are [`Self::Bf16`]. Multiplied as bf16 where there are instructions for it.
    Nf4,
    /// The blocks of a GGUF file as they are there, embedding and head too. Multiplied as [`Self::Nf4`].
    Gguf,
}

/// `x·Wᵀ` in W's own numbers, the result in x's: how the two mix where no kernel of ours does it.
pub(crate) fn product(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let weight_t = weight.clone().transpose();
    let (from, to) = (x.dtype(), weight.dtype());
    cast(cast(x, to).matmul(weight_t), from)
}

/// `f` of the tensor in 32-bit numbers, the result in the tensor's own.
pub(crate) fn widened<const D: usize>(
    x: Tensor<D>,
    f: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let own = x.dtype();
    cast(f(cast(x, DType::F32)), own)
}

/// The tensor in numbers of type `to`.
pub(crate) fn cast<const D: usize>(x: Tensor<D>, to: DType) -> Tensor<D> {
    if x.dtype() == to {
        return x;
    }
    match to {
        DType::BF16 => x.cast(burn::tensor::FloatDType::BF16),
        _ => x.cast(burn::tensor::FloatDType::F32),
    }
}

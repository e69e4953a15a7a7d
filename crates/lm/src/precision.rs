//! Which numbers the base model is kept and multiplied in.

use burn::tensor::{DType, Tensor};

/// What the base model's matrices are kept in. All sums, the activations, norms and the adapter are 32-bit in any case.
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

/// `x·Wᵀ` in W's own numbers, the result in x's: how devices without a kernel for it mix the two.
pub(crate) fn product(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let weight_t = weight.clone().transpose();
    let (from, to) = (x.dtype(), weight.dtype());
    if from == to {
        return x.matmul(weight_t);
    }
    cast(cast(x, to).matmul(weight_t), from)
}

/// The tensor in numbers of type `to`.
pub(crate) fn cast(x: Tensor<2>, to: DType) -> Tensor<2> {
    match to {
        DType::BF16 => x.cast(burn::tensor::FloatDType::BF16),
        _ => x.cast(burn::tensor::FloatDType::F32),
    }
}

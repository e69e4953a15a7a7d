//! The gated activation of the feed-forward block (Shazeer 2020, "GLU Variants Improve Transformer").
//!
//! Legend: n tokens, f the block's inner width.

#[cfg(feature = "cube")]
pub(super) mod cube;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, Flex};
use burn::tensor::{Tensor, activation};

use super::FusedOps;
use super::composed::{Composed, is_plain};
use super::cpu::vector::{exp, vectorized};
use super::cpu::{dims, rows, tensor, values};
use super::graph::{OnGraph, unary};
use crate::precision::widened;
use crate::profile::{Part, measure};

/// `silu(gate) · up`, the two side by side in one tensor as one product gives them.
///
/// # Shapes
/// `gate_up`: `[n, 2f]`; returns `[n, f]`.
pub(crate) fn swiglu(gate_up: Tensor<2>) -> Tensor<2> {
    if is_plain(&gate_up) {
        return plain(gate_up);
    }
    Tensor::from_dispatch(Dispatch::swiglu(gate_up.into_dispatch()))
}

/// The definition.
fn plain(gate_up: Tensor<2>) -> Tensor<2> {
    let width = gate_up.dims()[1] / 2;
    widened(gate_up, |gate_up| {
        let gate = gate_up.clone().narrow(1, 0, width);
        let up = gate_up.narrow(1, width, width);
        activation::silu(gate) * up
    })
}

pub(super) fn composed<B: Composed>(gate_up: FloatTensor<B>) -> FloatTensor<B> {
    B::primitive(plain(B::tensor(gate_up)))
}

pub(super) fn forward(gate_up: &FlexTensor) -> FlexTensor {
    let gate_up = gate_up.to_contiguous();
    let [n, both] = dims(&gate_up);
    let width = both / 2;
    let from = values(&gate_up);
    let out = measure(Part::Elementwise, || {
        rows(n, width, |rows, out| {
            forward_rows(&from[rows.start * both..rows.end * both], width, out);
        })
    });
    tensor(out, [n, width])
}

pub(super) fn backward(gate_up: &FlexTensor, gradient: &FlexTensor) -> FlexTensor {
    let (gate_up, gradient) = (gate_up.to_contiguous(), gradient.to_contiguous());
    let [n, both] = dims(&gate_up);
    let width = both / 2;
    let (from, dy) = (values(&gate_up), values(&gradient));
    let out = measure(Part::Elementwise, || {
        rows(n, both, |rows, out| {
            let dy = &dy[rows.start * width..rows.end * width];
            backward_rows(&from[rows.start * both..rows.end * both], width, dy, out);
        })
    });
    tensor(out, [n, both])
}

vectorized! {
    fn forward_rows(gate_up: &[f32], width: usize, out: &mut [f32]) {
        for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate / (1.0 + exp(-gate)) * up;
            }
        }
    }

    /// With σ = sigmoid(gate): `dgate = dy·up·σ·(1 + gate·(1 − σ))`, `dup = dy·gate·σ`.
    fn backward_rows(gate_up: &[f32], width: usize, dy: &[f32], out: &mut [f32]) {
        let rows = gate_up.chunks_exact(2 * width).zip(dy.chunks_exact(width));
        for ((row, dy), out) in rows.zip(out.chunks_exact_mut(2 * width)) {
            let (gate, up) = row.split_at(width);
            let (d_gate, d_up) = out.split_at_mut(width);
            let given = gate.iter().zip(up).zip(dy);
            for (((gate, up), dy), (d_gate, d_up)) in given.zip(d_gate.iter_mut().zip(d_up)) {
                let sigmoid = 1.0 / (1.0 + exp(-gate));
                *d_gate = dy * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
                *d_up = dy * gate * sigmoid;
            }
        }
    }
}

pub(super) fn differentiated<C: CheckpointStrategy>(gate_up: OnGraph) -> OnGraph {
    unary::<Flex, C, _>(
        gate_up,
        |gate_up, tracked| {
            let out = forward(&gate_up);
            (out, tracked.keep(|| gate_up))
        },
        |gate_up, gradient| backward(&gate_up, &gradient),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{agree, random};
    use super::*;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [rows, width] in [[1, 2], [5, 96], [300, 3072], [7, 34]] {
            let gate_up = random::<2>("gate_up", [rows, width]).mul_scalar(9.0);
            agree([gate_up], |[x]| swiglu(x), |[x]| plain(x));
        }
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn on_a_gpu_it_is_the_plain_one() {
        use super::super::testing::agree_on_a_gpu;

        for [rows, width] in [[1, 2], [5, 96], [300, 3072], [7, 34]] {
            let gate_up = random::<2>("gate_up", [rows, width]).mul_scalar(9.0);
            agree_on_a_gpu([gate_up], |[x]| swiglu(x), |[x]| plain(x));
        }
        // Not row by row in memory, and so large that an exponential overflows.
        let gate_up = random::<2>("gate_up", [64, 9]).mul_scalar(200.0);
        agree_on_a_gpu(
            [gate_up],
            |[x]| swiglu(x.transpose()),
            |[x]| plain(x.transpose()),
        );
    }
}

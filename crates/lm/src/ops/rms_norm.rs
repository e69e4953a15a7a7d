//! Root-mean-square normalisation (Zhang & Sennrich 2019).

#[cfg(feature = "cube")]
pub(super) mod cube;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, Flex};
use burn::tensor::Tensor;

use super::composed::{Composed, is_plain};
use super::cpu::vector::{dot, vectorized};
use super::cpu::{dims, rows, tensor, values};
use super::graph::{OnGraph, unary};
use super::weight::learns;
use super::{FusedOps, learned};
use crate::precision::widened;
use crate::profile::{Part, measure};

/// `x / √(mean(x²) + ε) · weight` over each row.
///
/// # Shapes
/// `x`: `[n, width]`, and the same out; `weight`: `[width]`.
pub(crate) fn rms_norm(x: Tensor<2>, weight: &Tensor<1>, epsilon: f32) -> Tensor<2> {
    if is_plain(&x) {
        return plain(x, weight, epsilon);
    }
    let (x, weight) = (x.into_dispatch(), weight.clone().into_dispatch());
    Tensor::from_dispatch(Dispatch::rms_norm(x, weight, epsilon))
}

/// The definition.
fn plain(x: Tensor<2>, weight: &Tensor<1>, epsilon: f32) -> Tensor<2> {
    widened(x, |x| {
        let mean_square = x.clone().square().mean_dim(1);
        let rms = mean_square.add_scalar(epsilon).sqrt();
        x / rms * weight.clone().unsqueeze()
    })
}

pub(super) fn composed<B: Composed>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    epsilon: f32,
) -> FloatTensor<B> {
    B::primitive(plain(B::tensor(x), &B::tensor(weight), epsilon))
}

pub(super) fn forward(x: &FlexTensor, weight: &FlexTensor, epsilon: f32) -> FlexTensor {
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let (from, w) = (values(&x), values(&weight));
    let width = w.len();
    let out = measure(Part::Elementwise, || {
        rows(from.len() / width, width, |rows, out| {
            let x = &from[rows.start * width..rows.end * width];
            forward_rows(x, w, epsilon, out);
        })
    });
    tensor(out, dims(&x))
}

pub(super) fn backward(
    x: &FlexTensor,
    weight: &FlexTensor,
    epsilon: f32,
    gradient: &FlexTensor,
) -> FlexTensor {
    let (x, weight, gradient) = (
        x.to_contiguous(),
        weight.to_contiguous(),
        gradient.to_contiguous(),
    );
    let (from, w, dy) = (values(&x), values(&weight), values(&gradient));
    let width = w.len();
    let out = measure(Part::Elementwise, || {
        rows(from.len() / width, width, |rows, out| {
            let part = rows.start * width..rows.end * width;
            backward_rows(&from[part.clone()], w, epsilon, &dy[part], out);
        })
    });
    tensor(out, dims(&x))
}

#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "widths are small")]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

vectorized! {
    fn forward_rows(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let scale = inverse_rms(x, epsilon);
            for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * w;
            }
        }
    }

    /// With s = 1/rms and g = dy·w: `dx = s·g − x·s³·mean(g·x)`.
    fn backward_rows(x: &[f32], weight: &[f32], epsilon: f32, dy: &[f32], out: &mut [f32]) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
        for ((x, dy), out) in rows.zip(out.chunks_exact_mut(width)) {
            let scale = inverse_rms(x, epsilon);
            for ((out, dy), w) in out.iter_mut().zip(dy).zip(weight) {
                *out = dy * w;
            }
            #[expect(clippy::cast_precision_loss, reason = "widths are small")]
            let along = dot(out, x) * scale * scale * scale / width as f32;
            for (out, x) in out.iter_mut().zip(x) {
                *out = *out * scale - x * along;
            }
        }
    }
}

pub(super) fn differentiated<C: CheckpointStrategy>(
    x: OnGraph,
    weight: OnGraph,
    epsilon: f32,
) -> OnGraph {
    if learns(&weight) {
        return learned::rms_norm::differentiated::<C>(x, weight, epsilon);
    }
    let weight = weight.into_primitive();
    unary::<Flex, C, _>(
        x,
        |x, tracked| {
            let out = forward(&x, &weight, epsilon);
            (out, tracked.keep(|| (x, weight, epsilon)))
        },
        |(x, weight, epsilon), gradient| backward(&x, &weight, epsilon, &gradient),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{agree, random};
    use super::*;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [rows, width] in [[1, 16], [5, 48], [300, 576], [7, 33]] {
            let weight = random::<1>("weight", [width]).autodiff();
            agree(
                [random::<2>("x", [rows, width])],
                |[x]| rms_norm(x, &weight, 1e-5),
                |[x]| plain(x, &weight, 1e-5),
            );
        }
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn on_a_gpu_it_is_the_plain_one() {
        use super::super::testing::{agree_on_a_gpu, on_a_gpu};

        // The widest grid has 65535 cubes in a row, and a cube 256 units.
        for [rows, width] in [[1, 16], [5, 48], [300, 576], [7, 33], [70_000, 5]] {
            let weight = on_a_gpu(random::<1>("weight", [width])).autodiff();
            agree_on_a_gpu(
                [random::<2>("x", [rows, width])],
                |[x]| rms_norm(x, &weight, 1e-5),
                |[x]| plain(x, &weight, 1e-5),
            );
        }
        let weight = on_a_gpu(random::<1>("weight", [30])).autodiff();
        // Rows that do not lie behind one another.
        agree_on_a_gpu(
            [random("x", [30, 20])],
            |[x]| rms_norm(x.transpose(), &weight, 1e-5),
            |[x]| plain(x.transpose(), &weight, 1e-5),
        );
    }
}

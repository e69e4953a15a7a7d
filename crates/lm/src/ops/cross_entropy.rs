//! Cross-entropy of the head's scores, a few rows at a time: `[n, v]` never exists.
//!
//! The gradient of the hidden states is made together with the loss, while the scores are at hand, and kept instead of
//! them; the backward pass only scales it (as in Liger Kernel, Hsu et al. 2024).
//!
//! Legend: n supervised tokens, d model width, v vocabulary.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Dispatch, Flex};
use burn::tensor::{DType, Int, Tensor, TensorData, activation};
use rayon::prelude::*;

use super::composed::{Composed, is_plain};
use super::cpu::vector::{exp, max, sum, vectorized};
use super::cpu::weight::{times_weight, times_weight_transposed};
use super::cpu::{dims, tensor, values};
use super::graph::{OnGraph, unary};
use super::weight::Role;
use super::{FusedOps, WeightOn, learned};
use crate::precision::cast;
use crate::profile::{Part, measure};
use crate::weight::Weight;

/// Rows whose scores exist at once, at most: no more than take what a layer's gradients take afterwards.
const ROWS: usize = 64;

/// Of `n` rows, how many to score at once: about as many each time. A row that is left alone would get a single row's
/// kernel, and its loss would depend on how many others there are.
pub(super) fn rows_at_once(n: usize) -> usize {
    n.div_ceil(n.div_ceil(ROWS).max(1)).max(1)
}

/// How well the head predicts each row's target: in the first column its negative log-likelihood in nats, in the second
/// 1 if no other token scores higher and 0 otherwise. Only the first has a gradient.
///
/// # Shapes
/// `hidden`: `[n, d]`, `head`: `[v, d]`, `targets`: n token ids below v; returns `[n, 2]`.
pub(crate) fn cross_entropy(hidden: Tensor<2>, head: &Weight, targets: &Arc<[u32]>) -> Tensor<2> {
    if is_plain(&hidden) {
        return plain(hidden, head, targets);
    }
    let (hidden, head) = (hidden.into_dispatch(), head.on_dispatch());
    Tensor::from_dispatch(Dispatch::cross_entropy(hidden, head, targets.clone()))
}

/// The definition.
fn plain(hidden: Tensor<2>, head: &Weight, targets: &[u32]) -> Tensor<2> {
    let n = targets.len();
    let ids: Vec<i64> = targets.iter().map(|id| i64::from(*id)).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [n, 1]), &hidden.device());
    let logits = cast(head.product(hidden), DType::F32);
    let is_best = logits.clone().argmax(1).equal(ids.clone()).float();
    let nll = activation::log_softmax(logits, 1).gather(1, ids).neg();
    Tensor::cat(vec![nll, is_best.detach()], 1)
}

pub(super) fn composed<B: Composed>(
    hidden: FloatTensor<B>,
    head: WeightOn<B>,
    targets: &[u32],
) -> FloatTensor<B> {
    B::primitive(plain(B::tensor(hidden), &head.weight(), targets))
}

pub(super) fn forward(hidden: &FlexTensor, head: &WeightOn<Flex>, targets: &[u32]) -> FlexTensor {
    measure(Part::Head, || chunked(hidden, head, targets, |_, _| {}))
}

/// As [`forward`], with the gradient of the hidden states for a gradient of 1 of each row's loss. `[n, d]`
fn forward_with_gradient(
    hidden: &FlexTensor,
    head: &WeightOn<Flex>,
    targets: &[u32],
) -> (FlexTensor, FlexTensor) {
    let [n, d] = dims(hidden);
    let [v, _] = head.dims();
    let mut d_hidden = Vec::with_capacity(n * d);
    let out = chunked(hidden, head, targets, |scores, targets| {
        scores
            .par_chunks_mut(v)
            .zip(targets)
            .for_each(|(scores, target)| {
                softmax(scores);
                scores[*target as usize] -= 1.0;
            });
        let scores = tensor(std::mem::take(scores), [targets.len(), v]);
        d_hidden.extend(times_weight(&scores, head));
    });
    (out, tensor(d_hidden, [n, d]))
}

/// `use_scores` may do with each chunk's scores what it wants.
fn chunked(
    hidden: &FlexTensor,
    head: &WeightOn<Flex>,
    targets: &[u32],
    mut use_scores: impl FnMut(&mut Vec<f32>, &[u32]),
) -> FlexTensor {
    let hidden = hidden.to_contiguous();
    let ([n, d], [v, _]) = (dims(&hidden), head.dims());
    let mut out = Vec::with_capacity(2 * n);
    let at_once = rows_at_once(n);
    let chunks = values(&hidden).chunks(at_once * d);
    for (chunk, targets) in chunks.zip(targets.chunks(at_once)) {
        let chunk = tensor(chunk.to_vec(), [targets.len(), d]);
        let (mut scores, _) = times_weight_transposed(&chunk, head);
        let rows: Vec<[f32; 2]> = scores
            .par_chunks(v)
            .zip(targets)
            .map(|(scores, target)| {
                let mut row = [0.0; 2];
                judge(scores, *target as usize, &mut row);
                row
            })
            .collect();
        out.extend(rows.as_flattened());
        use_scores(&mut scores, targets);
    }
    tensor(out, [n, 2])
}

/// The gradient of the hidden states, each row scaled by its loss's gradient.
fn backward(d_hidden: &FlexTensor, gradient: &FlexTensor) -> FlexTensor {
    let [n, d] = dims(d_hidden);
    let gradient = gradient.to_contiguous();
    let mut out = values(d_hidden).to_vec();
    for (row, gradient) in out
        .chunks_exact_mut(d)
        .zip(values(&gradient).chunks_exact(2))
    {
        for value in row {
            *value *= gradient[0];
        }
    }
    tensor(out, [n, d])
}

vectorized! {
    fn judge(scores: &[f32], target: usize, out: &mut [f32; 2]) {
        let largest = max(scores);
        let mut lanes = [0.0; 16];
        let chunks = scores.chunks_exact(16);
        let rest: f32 = chunks.remainder().iter().map(|score| exp(score - largest)).sum();
        for chunk in chunks {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *lane += exp(score - largest);
            }
        }
        let total = lanes.iter().sum::<f32>() + rest;
        *out = [
            total.ln() + largest - scores[target],
            if scores[target] >= largest { 1.0 } else { 0.0 },
        ];
    }

    pub(super) fn softmax(scores: &mut [f32]) {
        let largest = max(scores);
        for score in scores.iter_mut() {
            *score = exp(*score - largest);
        }
        let inverse = 1.0 / sum(scores);
        for score in scores {
            *score *= inverse;
        }
    }
}

pub(super) fn differentiated<C: CheckpointStrategy>(
    hidden: OnGraph,
    head: WeightOn<Autodiff<Flex, C>>,
    targets: Arc<[u32]>,
) -> OnGraph {
    let head = match head.role() {
        Role::Learned(head) => {
            return learned::cross_entropy::differentiated::<C>(hidden, head, targets);
        }
        Role::Frozen(head) => head,
    };
    unary::<Flex, C, _>(
        hidden,
        |hidden, tracked| {
            let with_gradient = || forward_with_gradient(&hidden, &head, &targets);
            match tracked.keep(|| measure(Part::Head, with_gradient)) {
                Some((out, d_hidden)) => (out, Some(d_hidden)),
                None => (forward(&hidden, &head, &targets), None),
            }
        },
        |d_hidden, gradient| backward(&d_hidden, &gradient),
    )
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::testing::{agree, agree_within, numbers, random};
    use super::*;
    use crate::blocks::testing::every_kind;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [n, d, v] in [[1, 8, 5], [7, 16, 130], [300, 24, 77]] {
            let head = random::<2>("head", [v, d]).mul_scalar(3.0).autodiff();
            let head = Weight::Dense(head);
            let target = |row| u32::try_from(row * 31 % v).unwrap();
            let targets: Arc<[u32]> = (0..n).map(target).collect();
            agree(
                [random("hidden", [n, d])],
                |[x]| cross_entropy(x, &head, &targets),
                |[x]| plain(x, &head, &targets),
            );
        }
    }

    #[test]
    fn a_rows_loss_does_not_depend_on_the_others() {
        let [n, d, v] = [2 * ROWS + 1, 48, 130];
        let head = random::<2>("head", [v, d]).mul_scalar(3.0);
        let narrow = head.clone().cast(burn::tensor::FloatDType::BF16);
        let hidden = random::<2>("hidden", [n, d]);
        for head in [head, narrow].map(Weight::Dense) {
            let losses = |rows: Range<usize>| {
                let target = |row| u32::try_from(row % v).unwrap();
                let targets: Arc<[u32]> = rows.clone().map(target).collect();
                let hidden = hidden.clone().narrow(0, rows.start, rows.len());
                numbers(cross_entropy(hidden, &head, &targets))
            };
            let apart = [losses(0..50), losses(50..n)].concat();
            assert_eq!(losses(0..n), apart);
        }
    }

    #[test]
    fn with_a_head_in_blocks_it_is_the_plain_one_but_for_rounding() {
        let [n, d, v] = [70, 256, 130];
        let target = |row| u32::try_from(row * 31 % v).unwrap();
        let targets: Arc<[u32]> = (0..n).map(target).collect();
        for blocks in every_kind(v, d) {
            let head = Weight::Blocks(Arc::new(blocks));
            // The losses alone: rounding may let another of two nearly equal scores win.
            agree_within(
                2e-2,
                [random("hidden", [n, d]).mul_scalar(0.05)],
                |[x]| cross_entropy(x, &head, &targets).narrow(1, 0, 1),
                |[x]| plain(x, &head, &targets).narrow(1, 0, 1),
            );
        }
    }
}

//! With p the softmax of a row's scores, less 1 at its target, and g the gradient of its loss: `dh = g·p·H` and
//! `dH = Σ g·pᵀ·h` over all rows.
//!
//! g is not known in the forward pass, and the head's gradient sums over rows, so the scores are made a second time, again
//! a few rows at once.
//!
//! Legend: n supervised tokens, d model width, v vocabulary.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::Both;
use crate::ops::cpu::matmul::{Into, Matrix, MatrixMut, matmul};
use crate::ops::cpu::weight::{times_weight, times_weight_transposed};
use crate::ops::cpu::{dims, tensor, values};
use crate::ops::cross_entropy::{self, softmax};
use crate::ops::graph::{OnGraph, binary};
use crate::profile::{Part, measure};

/// Rows whose scores exist at once. The head's gradient is a sum over all rows, made so many at a time.
const ROWS: usize = 256;
/// Tokens whose rows of the head's gradient a task makes.
const TOKENS: usize = 512;

pub(in crate::ops) fn differentiated<C: CheckpointStrategy>(
    hidden: OnGraph,
    head: OnGraph,
    targets: Arc<[u32]>,
) -> OnGraph {
    binary::<Flex, C, _>(
        [hidden, head],
        |[hidden, head]| {
            let out = cross_entropy::forward(&hidden, &head.clone().into(), &targets);
            (out, ([hidden, head], targets))
        },
        |(inputs, targets), gradient, wanted| {
            measure(Part::Head, || {
                backward(&inputs, &targets, &gradient, wanted)
            })
        },
    )
}

fn backward(
    [hidden, head]: &Both<FlexTensor>,
    targets: &[u32],
    gradient: &FlexTensor,
    [wants_hidden, wants_head]: Both<bool>,
) -> Both<Option<FlexTensor>> {
    let (hidden, gradient) = (hidden.to_contiguous(), gradient.to_contiguous());
    let ([n, d], [v, _]) = (dims(&hidden), dims(head));
    let head = head.clone().into();
    let mut d_hidden = Vec::with_capacity(if wants_hidden { n * d } else { 0 });
    let mut d_head = vec![0.0; if wants_head { v * d } else { 0 }];
    let losses = values(&gradient).chunks(2 * ROWS).zip(targets.chunks(ROWS));
    for (rows, (gradient, targets)) in values(&hidden).chunks(ROWS * d).zip(losses) {
        let chunk = tensor(rows.to_vec(), [targets.len(), d]);
        let (mut scores, _) = times_weight_transposed(&chunk, &head);
        scores
            .par_chunks_mut(v)
            .zip(targets)
            .zip(gradient.par_chunks_exact(2))
            .for_each(|((scores, target), gradient)| {
                softmax(scores);
                scores[*target as usize] -= 1.0;
                for score in scores {
                    *score *= gradient[0];
                }
            });
        d_head
            .par_chunks_mut(TOKENS * d)
            .enumerate()
            .for_each(|(task, d_head)| {
                let shape = [targets.len(), d_head.len() / d];
                let scores = Matrix::strided(&scores[task * TOKENS..], shape, v).transposed();
                matmul(
                    MatrixMut::new(d_head, d),
                    scores,
                    Matrix::new(rows, d),
                    Into::Add,
                );
            });
        if wants_hidden {
            let scores = tensor(scores, [targets.len(), v]);
            d_hidden.extend(times_weight(&scores, &head));
        }
    }
    [
        wants_hidden.then(|| tensor(d_hidden, [n, d])),
        wants_head.then(|| tensor(d_head, [v, d])),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::ops::cross_entropy;
    use crate::ops::testing::{agree, plainly, random};
    use crate::weight::Weight;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [n, d, v] in [[1, 8, 5], [7, 16, 130], [300, 24, 1100]] {
            let target = |row| u32::try_from(row * 31 % v).unwrap();
            let targets: Arc<[u32]> = (0..n).map(target).collect();
            let of = |hidden, head: burn::tensor::Tensor<2>| {
                cross_entropy(hidden, &Weight::Dense(head.mul_scalar(3.0)), &targets)
            };
            agree(
                [random("hidden", [n, d]), random("head", [v, d])],
                |[hidden, head]| of(hidden, head),
                |[hidden, head]| plainly(|| of(hidden, head)),
            );
        }
    }
}

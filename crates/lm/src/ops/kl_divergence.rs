//! How far the head's predictions have moved from a reference's, a few rows at a time: `[n, v]` never exists.
//!
//! As with [`super::cross_entropy`] the gradient is made together with the value, while the scores are at hand.
//!
//! Legend: n rows, d model width, v vocabulary.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Dispatch, Flex};
use burn::tensor::{DType, Tensor, activation};
use rayon::prelude::*;

use super::composed::{Composed, is_plain};
use super::cpu::vector::{exp, max, vectorized};
use super::cpu::weight::{times_weight, times_weight_transposed};
use super::cpu::{dims, tensor, values};
use super::cross_entropy::{rows_at_once, softmax};
use super::graph::{OnGraph, unary};
use super::{FusedOps, WeightOn};
use crate::precision::cast;
use crate::profile::{Part, measure};
use crate::weight::Weight;

/// `KL(p ‖ q)` in nats of each row, q being what the head makes of `hidden` and p what it makes of `reference`. Only
/// `hidden` has a gradient.
///
/// # Shapes
/// `hidden`, `reference`: `[n, d]`, `head`: `[v, d]`; returns `[n, 1]`.
pub(crate) fn kl_divergence(hidden: Tensor<2>, reference: Tensor<2>, head: &Weight) -> Tensor<2> {
    if is_plain(&hidden) {
        return plain(hidden, reference, head);
    }
    let (hidden, reference) = (hidden.into_dispatch(), reference.into_dispatch());
    Tensor::from_dispatch(Dispatch::kl_divergence(
        hidden,
        reference,
        head.on_dispatch(),
    ))
}

/// The definition.
fn plain(hidden: Tensor<2>, reference: Tensor<2>, head: &Weight) -> Tensor<2> {
    let log_softmax = |x| activation::log_softmax(cast(head.product(x), DType::F32), 1);
    let (log_q, log_p) = (log_softmax(hidden), log_softmax(reference).detach());
    (log_p.clone().exp() * (log_p - log_q)).sum_dim(1)
}

pub(super) fn composed<B: Composed>(
    hidden: FloatTensor<B>,
    reference: FloatTensor<B>,
    head: WeightOn<B>,
) -> FloatTensor<B> {
    let (hidden, reference) = (B::tensor(hidden), B::tensor(reference));
    B::primitive(plain(hidden, reference, &head.weight()))
}

pub(super) fn forward(
    hidden: &FlexTensor,
    reference: &FlexTensor,
    head: &WeightOn<Flex>,
) -> FlexTensor {
    measure(Part::Head, || {
        chunked(hidden, reference, head, |_, _, _| {})
    })
}

/// Over a head that does not learn.
pub(super) fn differentiated<C: CheckpointStrategy>(
    hidden: OnGraph,
    reference: OnGraph,
    head: WeightOn<Autodiff<Flex, C>>,
) -> OnGraph {
    let (reference, head) = (reference.into_primitive(), head.inner());
    unary::<Flex, C, _>(
        hidden,
        |hidden, tracked| {
            let with_gradient = || forward_with_gradient(&hidden, &reference, &head);
            match tracked.keep(|| measure(Part::Head, with_gradient)) {
                Some((out, d_hidden)) => (out, Some(d_hidden)),
                None => (forward(&hidden, &reference, &head), None),
            }
        },
        // `[n, d]` times `[n, 1]`.
        Flex::float_mul,
    )
}

/// With logits z, `dKL/dz = q − p`.
fn forward_with_gradient(
    hidden: &FlexTensor,
    reference: &FlexTensor,
    head: &WeightOn<Flex>,
) -> (FlexTensor, FlexTensor) {
    let ([n, d], [v, _]) = (dims(hidden), head.dims());
    let mut d_hidden = Vec::with_capacity(n * d);
    let out = chunked(hidden, reference, head, |q, p, rows| {
        q.par_chunks_mut(v)
            .zip(p.par_chunks_mut(v))
            .for_each(|(q, p)| difference(q, p));
        let scores = tensor(std::mem::take(q), [rows, v]);
        d_hidden.extend(times_weight(&scores, head));
    });
    (out, tensor(d_hidden, [n, d]))
}

/// `use_scores` may do with each chunk's scores what it wants: the model's, the reference's, the number of rows.
fn chunked(
    hidden: &FlexTensor,
    reference: &FlexTensor,
    head: &WeightOn<Flex>,
    mut use_scores: impl FnMut(&mut Vec<f32>, &mut Vec<f32>, usize),
) -> FlexTensor {
    let (hidden, reference) = (hidden.to_contiguous(), reference.to_contiguous());
    let ([n, d], [v, _]) = (dims(&hidden), head.dims());
    let scores = |rows: &[f32]| {
        let rows = tensor(rows.to_vec(), [rows.len() / d, d]);
        times_weight_transposed(&rows, head).0
    };
    let mut out = Vec::with_capacity(n);
    let at_once = rows_at_once(n) * d;
    let chunks = values(&hidden).chunks(at_once);
    for (now, before) in chunks.zip(values(&reference).chunks(at_once)) {
        let (mut q, mut p) = (scores(now), scores(before));
        let rows = q.par_chunks(v).zip(p.par_chunks(v));
        let rows: Vec<f32> = rows
            .map(|(q, p)| {
                let mut kl = 0.0;
                divergence(q, p, &mut kl);
                kl
            })
            .collect();
        out.extend(rows);
        use_scores(&mut q, &mut p, now.len() / d);
    }
    tensor(out, [n, 1])
}

vectorized! {
    /// `Σ p·(p's logits − q's logits) − log Σe^(p's logits) + log Σe^(q's logits)`, the largest logit taken off each.
    fn divergence(q: &[f32], p: &[f32], out: &mut f32) {
        let (largest_q, largest_p) = (max(q), max(p));
        let (mut sum_q, mut sum_p, mut along) = ([0.0; 16], [0.0; 16], [0.0; 16]);
        let (q_chunks, p_chunks) = (q.chunks_exact(16), p.chunks_exact(16));
        let rest = q_chunks.remainder().iter().zip(p_chunks.remainder());
        let (mut rest_q, mut rest_p, mut rest_along) = (0.0, 0.0, 0.0);
        for (q, p) in rest {
            let (q, p) = (q - largest_q, p - largest_p);
            rest_q += exp(q);
            rest_p += exp(p);
            rest_along += exp(p) * (p - q);
        }
        for (q, p) in q_chunks.zip(p_chunks) {
            for lane in 0..16 {
                let (q, p) = (q[lane] - largest_q, p[lane] - largest_p);
                let weight = exp(p);
                sum_q[lane] += exp(q);
                sum_p[lane] += weight;
                along[lane] += weight * (p - q);
            }
        }
        let total = |lanes: [f32; 16], rest: f32| lanes.iter().sum::<f32>() + rest;
        let (sum_q, sum_p) = (total(sum_q, rest_q), total(sum_p, rest_p));
        *out = total(along, rest_along) / sum_p - sum_p.ln() + sum_q.ln();
    }

    /// `softmax(q) − softmax(p)` over q.
    fn difference(q: &mut [f32], p: &mut [f32]) {
        softmax(q);
        softmax(p);
        for (q, p) in q.iter_mut().zip(p) {
            *q -= *p;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{agree, close, numbers, plainly, random};
    use super::*;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [n, d, v] in [[1, 8, 5], [7, 16, 130], [300, 24, 77]] {
            let head = Weight::Dense(random::<2>("head", [v, d]).mul_scalar(3.0).autodiff());
            let reference = random::<2>("reference", [n, d]).autodiff();
            agree(
                [random("hidden", [n, d])],
                |[x]| kl_divergence(x, reference.clone(), &head),
                |[x]| plain(x, reference.clone(), &head),
            );
        }
    }

    #[test]
    fn a_head_that_learns_has_a_gradient() {
        let [n, d, v] = [7, 16, 130];
        let (hidden, reference) = (random::<2>("hidden", [n, d]), random("reference", [n, d]));
        let gradient = || {
            let head = random::<2>("head", [v, d]).autodiff().require_grad();
            let (hidden, reference) = (hidden.clone().autodiff(), reference.clone().autodiff());
            let kl = kl_divergence(hidden, reference, &Weight::Dense(head.clone()));
            numbers(head.grad(&kl.sum().backward()).unwrap())
        };
        close("the head's", 1e-6, &gradient(), &plainly(gradient));
    }

    #[test]
    fn nothing_has_moved_from_itself() {
        let (x, head) = (random::<2>("x", [3, 8]), random::<2>("head", [40, 8]));
        let head = Weight::Dense(head);
        let found: Vec<f32> = kl_divergence(x.clone(), x, &head)
            .into_data()
            .try_to_vec()
            .unwrap();
        assert!(found.iter().all(|kl| kl.abs() < 1e-6), "{found:?}");
    }
}

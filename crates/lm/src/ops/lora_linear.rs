//! Linear layers that read one input, with their adapters: one product for all of them (Hu et al. 2021, "LoRA").
//!
//! Legend: n tokens, d columns in, o columns out of all parts together, r ranks of all parts together.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Dispatch};
use burn::tensor::Tensor;

use super::cpu::matmul::{Into, Matrix, MatrixMut, matmul};
use super::cpu::weight::{times_weight, times_weight_transposed};
use super::cpu::{dims, tensor, values};
use super::{FusedGradients, FusedOps, is_fused};
use crate::precision::product;

/// Where each adapted part lies, and the factor on what the adapters add.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoraPlan {
    pub(crate) parts: Vec<LoraPart>,
    pub(crate) scale: f32,
}

/// One adapted matrix among those that share the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoraPart {
    /// Its columns of the output.
    pub(crate) columns: Range<usize>,
    pub(crate) rank: usize,
}

/// A part with the places of its two factors among the others'.
struct Placed {
    columns: Range<usize>,
    /// Columns of `a`.
    ranks: Range<usize>,
    /// Numbers of `b`.
    b: Range<usize>,
}

impl LoraPlan {
    fn placed(&self) -> impl Iterator<Item = Placed> + '_ {
        let (mut rank, mut number) = (0, 0);
        self.parts.iter().map(move |part| {
            let ranks = rank..rank + part.rank;
            let b = number..number + part.rank * part.columns.len();
            (rank, number) = (ranks.end, b.end);
            Placed {
                columns: part.columns.clone(),
                ranks,
                b,
            }
        })
    }
}

/// `x·Wᵀ`, and in the columns of each part `+ scale · (x·A)·B` of that part.
///
/// # Shapes
/// `x`: `[n, d]`, `weight`: `[o, d]`, `a`: `[d, r]` with the parts' factors side by side, `b`: the parts' factors
/// `[rank, columns]` one behind the other, as one line; returns `[n, o]`.
pub(crate) fn lora_linear(
    x: Tensor<2>,
    weight: &Tensor<2>,
    a: Tensor<2>,
    b: Tensor<1>,
    plan: Arc<LoraPlan>,
) -> Tensor<2> {
    if !is_fused(&x) || weight.is_require_grad() {
        return plain(x, weight, a, &b, &plan);
    }
    Tensor::from_dispatch(Dispatch::lora_linear(
        x.into_dispatch(),
        weight.clone().into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        plan,
    ))
}

/// The definition.
fn plain(
    x: Tensor<2>,
    weight: &Tensor<2>,
    a: Tensor<2>,
    b: &Tensor<1>,
    plan: &LoraPlan,
) -> Tensor<2> {
    let y = product(x.clone(), weight);
    let u = x.matmul(a).mul_scalar(plan.scale);
    let mut parts = Vec::new();
    let mut end = 0;
    for part in plan.placed() {
        if part.columns.start > end {
            parts.push(y.clone().narrow(1, end, part.columns.start - end));
        }
        let b = b.clone().narrow(0, part.b.start, part.b.len());
        let b = b.reshape([part.ranks.len(), part.columns.len()]);
        let added = u.clone().narrow(1, part.ranks.start, part.ranks.len());
        let base = y.clone().narrow(1, part.columns.start, part.columns.len());
        parts.push(base + added.matmul(b));
        end = part.columns.end;
    }
    let [_, width] = y.dims();
    if end < width {
        parts.push(y.narrow(1, end, width - end));
    }
    Tensor::cat(parts, 1)
}

/// Returns `y` and `u = scale·x·A`, which the backward pass needs again.
pub(super) fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    a: &FlexTensor,
    b: &FlexTensor,
    plan: &LoraPlan,
) -> (FlexTensor, FlexTensor) {
    let (x, a, b) = (x.to_contiguous(), a.to_contiguous(), b.to_contiguous());
    let [n, d] = dims(&x);
    let [_, r] = dims(&a);
    let mut u = vec![0.0; n * r];
    matmul(
        MatrixMut::new(&mut u, r),
        Matrix::new(values(&x), d),
        Matrix::new(values(&a), r),
        Into::Overwrite,
    );
    for value in &mut u {
        *value *= plan.scale;
    }
    let (mut y, o) = times_weight_transposed(&x, weight);
    for part in plan.placed() {
        matmul(
            columns_mut(&mut y, n, o, &part.columns),
            columns(&u, n, r, &part.ranks),
            Matrix::new(&values(&b)[part.b], part.columns.len()),
            Into::Add,
        );
    }
    (tensor(y, [n, o]), tensor(u, [n, r]))
}

/// The gradients of `x`, if it is wanted, of `a` and of `b`.
pub(super) fn backward(
    state: &LoraState<FlexTensor>,
    gradient: &FlexTensor,
    wants_x: bool,
) -> (Option<FlexTensor>, FlexTensor, FlexTensor) {
    let LoraState {
        x,
        weight,
        a,
        b,
        u,
        plan,
    } = state;
    let (x, a, b) = (x.to_contiguous(), a.to_contiguous(), b.to_contiguous());
    let gradient = gradient.to_contiguous();
    let ([n, o], [d, r]) = (dims(&gradient), dims(&a));
    let dy = values(&gradient);

    // v = scale · dy·Bᵀ, part by part.
    let mut v = vec![0.0; n * r];
    let mut d_b = vec![0.0; values(&b).len()];
    for part in plan.placed() {
        let (width, dy) = (part.columns.len(), columns(dy, n, o, &part.columns));
        matmul(
            columns_mut(&mut v, n, r, &part.ranks),
            dy,
            Matrix::new(&values(&b)[part.b.clone()], width).transposed(),
            Into::Overwrite,
        );
        matmul(
            MatrixMut::new(&mut d_b[part.b], width),
            columns(values(u), n, r, &part.ranks).transposed(),
            dy,
            Into::Overwrite,
        );
    }
    for value in &mut v {
        *value *= plan.scale;
    }
    let mut d_a = vec![0.0; d * r];
    matmul(
        MatrixMut::new(&mut d_a, r),
        Matrix::new(values(&x), d).transposed(),
        Matrix::new(&v, r),
        Into::Overwrite,
    );
    let d_x = wants_x.then(|| {
        let mut d_x = times_weight(&gradient, weight);
        matmul(
            MatrixMut::new(&mut d_x, d),
            Matrix::new(&v, r),
            Matrix::new(values(&a), r).transposed(),
            Into::Add,
        );
        tensor(d_x, [n, d])
    });
    let n_b = d_b.len();
    (d_x, tensor(d_a, [d, r]), tensor(d_b, [n_b]))
}

fn columns<'a>(values: &'a [f32], rows: usize, width: usize, of: &Range<usize>) -> Matrix<'a> {
    Matrix::strided(&values[of.start..], [rows, of.len()], width)
}

fn columns_mut<'a>(
    values: &'a mut [f32],
    rows: usize,
    width: usize,
    of: &Range<usize>,
) -> MatrixMut<'a> {
    MatrixMut::strided(&mut values[of.start..], [rows, of.len()], width)
}

/// What the backward pass needs of the forward one.
#[derive(Debug, Clone)]
pub(crate) struct LoraState<T> {
    x: T,
    weight: T,
    a: T,
    b: T,
    u: T,
    plan: Arc<LoraPlan>,
}

#[derive(Debug)]
struct Differentiated;

impl<B: FusedGradients> Backward<B, 3> for Differentiated {
    type State = LoraState<FloatTensor<B>>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [x, a, b] = ops.parents;
        let gradient = gradients.consume::<B>(&ops.node);
        // Nothing below the first adapter learns, so nothing there is asked for.
        let (d_x, d_a, d_b) = B::lora_linear_backward(ops.state, gradient, x.is_some());
        for (parent, gradient) in [(x, d_x), (a, Some(d_a)), (b, Some(d_b))] {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

pub(super) fn differentiated<B: FusedOps + FusedGradients, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    a: FloatTensor<Autodiff<B, C>>,
    b: FloatTensor<Autodiff<B, C>>,
    plan: Arc<LoraPlan>,
) -> FloatTensor<Autodiff<B, C>> {
    let weight = weight.into_primitive();
    let (x, x_node) = x.into_parts();
    let (a, a_node) = a.into_parts();
    let (b, b_node) = b.into_parts();
    match Differentiated
        .prepare::<C>([x_node, a_node, b_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(op) => {
            let (y, u) = B::lora_linear_forward(&x, &weight, &a, &b, &plan);
            let state = LoraState {
                x,
                weight,
                a,
                b,
                u,
                plan,
            };
            op.finish(state, y)
        }
        OpsKind::UnTracked(op) => op.finish(B::lora_linear(x, weight, a, b, plan)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{agree, random, random_line};
    use super::*;

    fn plan(parts: &[(Range<usize>, usize)]) -> Arc<LoraPlan> {
        let parts = parts.iter().map(|(columns, rank)| LoraPart {
            columns: columns.clone(),
            rank: *rank,
        });
        Arc::new(LoraPlan {
            parts: parts.collect(),
            scale: 1.5,
        })
    }

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for (n, d, o, plan) in [
            (3, 8, 12, plan(&[(0..12, 4)])),
            (40, 48, 40, plan(&[(0..24, 8), (24..32, 8), (32..40, 8)])),
            // Some matrices are not adapted: the first, one in the middle, the last.
            (17, 32, 64, plan(&[(8..24, 2), (40..56, 4)])),
            (1, 16, 16, plan(&[(0..16, 1)])),
        ] {
            let weight = random::<2>("weight", [o, d]).autodiff();
            let r = plan.parts.iter().map(|part| part.rank).sum();
            let n_b = plan
                .parts
                .iter()
                .map(|part| part.rank * part.columns.len())
                .sum();
            let inputs = [
                random::<2>("x", [n, d]),
                random("a", [d, r]),
                random_line("b", n_b),
            ];
            let line = |b: Tensor<2>| {
                let n = b.dims()[1];
                b.reshape([n])
            };
            agree(
                inputs,
                |[x, a, b]| lora_linear(x, &weight, a, line(b), plan.clone()),
                |[x, a, b]| super::plain(x, &weight, a, &line(b), &plan),
            );
        }
    }
}

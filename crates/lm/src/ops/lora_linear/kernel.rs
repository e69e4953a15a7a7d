//! The CPU's adapted linear layers.

mod narrow;

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::{LoraPlan, LoraState, Placed, Source};
use crate::ops::cpu::matmul::{Into, Matrix, MatrixMut, matmul};
use crate::ops::cpu::weight::{
    forward_beside, kernel_beside, times_weight, times_weight_transposed,
};
use crate::ops::cpu::{dims, rows, tensor, values};
use crate::ops::{WeightOn, rms_norm, swiglu};
use crate::profile::{Part, measure};

impl Source<Flex> {
    /// What the layer reads.
    fn input(&self) -> FlexTensor {
        match self {
            Self::Given(x) if x.dtype() == DType::BF16 => narrow::widened(x),
            Self::Given(x) => x.to_contiguous(),
            Self::Normed { x, weight, epsilon } => rms_norm::forward(x, weight, *epsilon),
            Self::Gated(gate_up) => swiglu::forward(gate_up),
        }
    }

    /// What to keep for the backward pass of a layer over `weight`. Where that reads its input in bfloat16, so does the
    /// gradient of `a`, and nobody reads an input that is given in more.
    pub(super) fn kept(self, weight: &WeightOn<Flex>) -> Self {
        match self {
            Self::Given(x) if kernel_beside(weight).is_some() => Self::Given(narrow::narrowed(&x)),
            kept => kept,
        }
    }

    /// From the gradient of what the layer reads to that of the source.
    fn gradient(&self, gradient: FlexTensor) -> FlexTensor {
        match self {
            Self::Given(_) => gradient,
            Self::Normed { x, weight, epsilon } => {
                rms_norm::backward(x, weight, *epsilon, &gradient)
            }
            Self::Gated(gate_up) => swiglu::backward(gate_up, &gradient),
        }
    }
}

/// Rows that a task takes.
const ROWS: usize = 64;
/// Columns of the input whose gradients of A a task makes.
const COLUMNS: usize = 192;

/// Returns `y` and `u = scale·x·A`, which the backward pass needs again.
pub(in crate::ops) fn forward(
    source: &Source<Flex>,
    weight: &WeightOn<Flex>,
    a: &FlexTensor,
    b: &FlexTensor,
    plan: &LoraPlan,
) -> (FlexTensor, FlexTensor) {
    let (x, a, b) = (source.input(), a.to_contiguous(), b.to_contiguous());
    let ([n, d], [_, r]) = (dims(&x), dims(&a));
    // A single row's product with the matrix is made in f32.
    if let Some(kernel) = kernel_beside(weight).filter(|_| n > 1) {
        let [o, _] = weight.dims();
        let beside = narrow::beside(values(&a), values(&b), [r, o], plan);
        let (y, u) = forward_beside(&x, weight, &beside, kernel);
        return (tensor(y, [n, o]), tensor(u, [n, r]));
    }
    let (mut y, o) = times_weight_transposed(&x, weight);
    let mut u = vec![0.0; n * r];
    let (x, a, b) = (values(&x), values(&a), values(&b));
    let placed: Vec<_> = plan.placed().collect();
    measure(Part::Lora, || {
        let blocks = y.par_chunks_mut(ROWS * o).zip(u.par_chunks_mut(ROWS * r));
        blocks.zip(x.par_chunks(ROWS * d)).for_each(|((y, u), x)| {
            let (x, n) = (Matrix::new(x, d), x.len() / d);
            matmul(MatrixMut::new(u, r), x, Matrix::new(a, r), Into::Overwrite);
            scale(u, plan.scale);
            for part in &placed {
                let b = Matrix::new(&b[part.b.clone()], part.columns.len());
                let u = columns(u, n, r, &part.ranks);
                matmul(columns_mut(y, n, o, &part.columns), u, b, Into::Add);
            }
        });
    });
    (tensor(y, [n, o]), tensor(u, [n, r]))
}

/// The gradients of the source, if it is wanted, of `a` and of `b`.
pub(super) fn backward(
    state: &LoraState,
    gradient: &FlexTensor,
    wants_source: bool,
) -> (Option<FlexTensor>, FlexTensor, FlexTensor) {
    if let Some(kernel) = kernel_beside(&state.weight) {
        return narrow::backward(state, gradient, wants_source, kernel);
    }
    let (a, b) = (state.a.to_contiguous(), state.b.to_contiguous());
    let gradient = gradient.to_contiguous();
    let ([n, o], [d, r]) = (dims(&gradient), dims(&a));
    let n_b = values(&b).len();
    let placed: Vec<_> = state.plan.placed().collect();

    let mut d_x = Vec::new();
    if wants_source {
        d_x = times_weight(&gradient, &state.weight);
    }
    let v = measure(Part::Lora, || {
        let (a, b) = (Matrix::new(values(&a), r), values(&b));
        let v = rows(n, r, |rows, v| {
            for part in &placed {
                let dy = &values(&gradient)[rows.start * o..];
                let b = Matrix::new(&b[part.b.clone()], part.columns.len());
                let dy = columns(dy, rows.len(), o, &part.columns);
                let v = columns_mut(v, rows.len(), r, &part.ranks);
                matmul(v, dy, b.transposed(), Into::Overwrite);
            }
            scale(v, state.plan.scale);
        });
        let blocks = d_x.par_chunks_mut(ROWS * d).zip(v.par_chunks(ROWS * r));
        blocks.for_each(|(d_x, v)| {
            let v = Matrix::new(v, r);
            matmul(MatrixMut::new(d_x, d), v, a.transposed(), Into::Add);
        });
        v
    });
    let (mut d_a, mut d_b) = (vec![0.0; d * r], vec![0.0; n_b]);
    let x = state.source.input();
    measure(Part::Lora, || {
        let (x, v, dy) = (values(&x), Matrix::new(&v, r), values(&gradient));
        let d_a = d_a.par_chunks_mut(COLUMNS * r).enumerate();
        let make_a = || {
            d_a.for_each(|(chunk, d_a)| {
                let x = &x[chunk * COLUMNS..];
                let x = Matrix::strided(x, [n, d_a.len() / r], d).transposed();
                matmul(MatrixMut::new(d_a, r), x, v, Into::Overwrite);
            });
        };
        let parts = split(&mut d_b, &placed);
        let make_b = || {
            parts.into_par_iter().for_each(|(part, d_b)| {
                let u = columns(values(&state.u), n, r, &part.ranks).transposed();
                let dy = columns(dy, n, o, &part.columns);
                let d_b = MatrixMut::new(d_b, part.columns.len());
                matmul(d_b, u, dy, Into::Overwrite);
            });
        };
        rayon::join(make_a, make_b);
    });
    drop(x);
    let d_source = wants_source.then(|| state.source.gradient(tensor(d_x, [n, d])));
    (d_source, tensor(d_a, [d, r]), tensor(d_b, [n_b]))
}

fn scale(values: &mut [f32], factor: f32) {
    for value in values {
        *value *= factor;
    }
}

/// Each part's own numbers of `b`.
fn split<'a>(mut b: &'a mut [f32], parts: &'a [Placed]) -> Vec<(&'a Placed, &'a mut [f32])> {
    let mut split = Vec::with_capacity(parts.len());
    for part in parts {
        let (own, rest) = b.split_at_mut(part.b.len());
        split.push((part, own));
        b = rest;
    }
    split
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

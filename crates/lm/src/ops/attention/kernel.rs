//! The CPU's attention. A task is one key/value head of one segment, with the query heads that share it.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::attention::{Heads, RaggedAttention};
use crate::ops::cpu::matmul::{Into, Matrix, MatrixMut, matmul};
use crate::ops::cpu::vector::{dot, exp, max, sum, vectorized};
use crate::ops::cpu::{rows, tensor, values};
use crate::profile::{Part, measure};
use crate::rope::Rotation;

/// Queries whose scores exist at once.
const BLOCK: usize = 64;

/// One task's place in the batch.
#[derive(Clone, Copy)]
struct Task {
    /// First token of the segment.
    start: usize,
    len: usize,
    kv_head: usize,
}

pub(in crate::ops) fn forward(qkv: &FlexTensor, plan: &RaggedAttention) -> FlexTensor {
    measure(Part::Attention, || attended(qkv, plan))
}

pub(in crate::ops) fn backward(
    qkv: &FlexTensor,
    plan: &RaggedAttention,
    gradient: &FlexTensor,
) -> FlexTensor {
    measure(Part::Attention, || gradients(qkv, plan, gradient))
}

fn attended(qkv: &FlexTensor, plan: &RaggedAttention) -> FlexTensor {
    let qkv = qkv.to_contiguous();
    let qkv = values(&qkv);
    let (heads, tasks) = (plan.heads(), tasks(plan));
    let parts: Vec<Vec<f32>> = tasks
        .par_iter()
        .map(|task| Head::gather(qkv, plan, *task).forward())
        .collect();
    let group_width = heads.group * heads.head_dim;
    let width = heads.n_kv * group_width;
    let places = places(plan);
    let out = rows(places.len(), width, |rows, out| {
        for (row, place) in out.chunks_exact_mut(width).zip(&places[rows]) {
            let columns = row.chunks_exact_mut(group_width);
            for (columns, part) in columns.zip(&parts[place.first_task..]) {
                columns.copy_from_slice(&part[place.token * group_width..][..group_width]);
            }
        }
    });
    tensor(out, [places.len(), width])
}

fn gradients(qkv: &FlexTensor, plan: &RaggedAttention, gradient: &FlexTensor) -> FlexTensor {
    let (qkv, gradient) = (qkv.to_contiguous(), gradient.to_contiguous());
    let (qkv, gradient) = (values(&qkv), values(&gradient));
    let (heads, tasks) = (plan.heads(), tasks(plan));
    let parts: Vec<HeadGradients> = tasks
        .par_iter()
        .map(|task| Head::gather(qkv, plan, *task).backward(gradient))
        .collect();
    let (group_width, head_dim) = (heads.group * heads.head_dim, heads.head_dim);
    let (width, places) = (heads.width(), places(plan));
    let out = rows(places.len(), width, |rows, out| {
        for (row, place) in out.chunks_exact_mut(width).zip(&places[rows]) {
            let parts = &parts[place.first_task..][..heads.n_kv];
            for (kv_head, part) in parts.iter().enumerate() {
                let columns = heads.columns(kv_head);
                let mut put = |column, part: &[f32], width| {
                    row[column..][..width].copy_from_slice(&part[place.token * width..][..width]);
                };
                put(columns.q, &part.q, group_width);
                put(columns.k, &part.k, head_dim);
                put(columns.v, &part.v, head_dim);
            }
        }
    });
    tensor(out, [places.len(), width])
}

/// Where a token's results are.
struct Place {
    /// The first task of its segment; those of its other heads follow.
    first_task: usize,
    /// The token within the segment.
    token: usize,
}

fn places(plan: &RaggedAttention) -> Vec<Place> {
    let n_kv = plan.heads().n_kv;
    let segments = plan.segments().enumerate();
    segments
        .flat_map(|(segment, (_, len))| {
            (0..len).map(move |token| Place {
                first_task: segment * n_kv,
                token,
            })
        })
        .collect()
}

fn tasks(plan: &RaggedAttention) -> Vec<Task> {
    let of_segment = |(start, len): (usize, usize)| {
        (0..plan.heads().n_kv).map(move |kv_head| Task {
            start,
            len,
            kv_head,
        })
    };
    plan.segments().flat_map(of_segment).collect()
}

/// A task's inputs, gathered and rotated.
struct Head<'a> {
    plan: &'a RaggedAttention,
    task: Task,
    heads: Heads,
    scale: f32,
    /// By query head `[s, e]`.
    q: Vec<Vec<f32>>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// `q`: `[s, group·e]`, `k` and `v`: `[s, e]`.
struct HeadGradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Which keys a block of queries sees.
struct Block {
    first: usize,
    len: usize,
    /// The first key that any of them sees.
    first_key: usize,
    n_keys: usize,
}

impl<'a> Head<'a> {
    fn gather(qkv: &[f32], plan: &'a RaggedAttention, task: Task) -> Self {
        let heads = plan.heads();
        let columns = heads.columns(task.kv_head);
        let rows = &qkv[task.start * heads.width()..][..task.len * heads.width()];
        let take = |column: usize, rotate: bool| {
            let mut head = vec![0.0; task.len * heads.head_dim];
            for (row, head) in rows
                .chunks_exact(heads.width())
                .zip(head.chunks_exact_mut(heads.head_dim))
            {
                head.copy_from_slice(&row[column..][..heads.head_dim]);
            }
            if rotate {
                turn(&mut head, heads.head_dim, plan.rotation(), 1.0);
            }
            head
        };
        Self {
            plan,
            task,
            heads,
            #[expect(clippy::cast_precision_loss, reason = "head_dim is at most 1024")]
            scale: 1.0 / (heads.head_dim as f32).sqrt(),
            q: (0..heads.group)
                .map(|head| take(columns.q + head * heads.head_dim, true))
                .collect(),
            k: take(columns.k, true),
            v: take(columns.v, false),
        }
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let (len, window) = (self.task.len, self.plan.window());
        (0..len).step_by(BLOCK).map(move |first| {
            let block_len = BLOCK.min(len - first);
            let first_key = window.map_or(0, |window| (first + 1).saturating_sub(window));
            Block {
                first,
                len: block_len,
                first_key,
                n_keys: first + block_len - first_key,
            }
        })
    }

    /// The attention weights of a block's queries over its keys.
    fn weights(&self, q: &[f32], block: &Block, out: &mut Vec<f32>) {
        let e = self.heads.head_dim;
        out.clear();
        out.resize(block.len * block.n_keys, 0.0);
        matmul(
            MatrixMut::new(out, block.n_keys),
            Matrix::new(&q[block.first * e..][..block.len * e], e),
            Matrix::new(&self.k[block.first_key * e..][..block.n_keys * e], e).transposed(),
            Into::Overwrite,
        );
        for (row, scores) in out.chunks_exact_mut(block.n_keys).enumerate() {
            let query = block.first + row;
            let first = self
                .plan
                .window()
                .map_or(0, |window| (query + 1).saturating_sub(window));
            softmax(
                scores,
                first - block.first_key,
                query + 1 - block.first_key,
                self.scale,
            );
        }
    }

    /// `[s, group·e]`
    fn forward(&self) -> Vec<f32> {
        let e = self.heads.head_dim;
        let width = self.heads.group * e;
        let mut out = vec![0.0; self.task.len * width];
        let mut weights = Vec::new();
        for (head, q) in self.q.iter().enumerate() {
            for block in self.blocks() {
                self.weights(q, &block, &mut weights);
                matmul(
                    MatrixMut::strided(
                        &mut out[block.first * width + head * e..],
                        [block.len, e],
                        width,
                    ),
                    Matrix::new(&weights, block.n_keys),
                    Matrix::new(&self.v[block.first_key * e..][..block.n_keys * e], e),
                    Into::Overwrite,
                );
            }
        }
        out
    }

    fn backward(&self, gradient: &[f32]) -> HeadGradients {
        let e = self.heads.head_dim;
        let (len, width) = (self.task.len, self.heads.group * e);
        let mut d_q = vec![0.0; len * width];
        let (mut d_k, mut d_v) = (vec![0.0; len * e], vec![0.0; len * e]);
        let (mut weights, mut d_weights) = (Vec::new(), Vec::new());
        let out_width = self.heads.n_heads() * e;
        for (head, q) in self.q.iter().enumerate() {
            let column = (self.task.kv_head * self.heads.group + head) * e;
            let mut d_head = vec![0.0; len * e];
            for block in self.blocks() {
                let rows = (self.task.start + block.first) * out_width + column;
                let d_out = Matrix::strided(&gradient[rows..], [block.len, e], out_width);
                let keys = block.first_key * e..(block.first_key + block.n_keys) * e;
                self.weights(q, &block, &mut weights);
                d_weights.clear();
                d_weights.resize(weights.len(), 0.0);
                matmul(
                    MatrixMut::new(&mut d_weights, block.n_keys),
                    d_out,
                    Matrix::new(&self.v[keys.clone()], e).transposed(),
                    Into::Overwrite,
                );
                matmul(
                    MatrixMut::new(&mut d_v[keys.clone()], e),
                    Matrix::new(&weights, block.n_keys).transposed(),
                    d_out,
                    Into::Add,
                );
                softmax_backward(&weights, block.n_keys, self.scale, &mut d_weights);
                let d_scores = Matrix::new(&d_weights, block.n_keys);
                matmul(
                    MatrixMut::new(&mut d_head[block.first * e..][..block.len * e], e),
                    d_scores,
                    Matrix::new(&self.k[keys.clone()], e),
                    Into::Overwrite,
                );
                matmul(
                    MatrixMut::new(&mut d_k[keys], e),
                    d_scores.transposed(),
                    Matrix::new(&q[block.first * e..][..block.len * e], e),
                    Into::Add,
                );
            }
            turn(&mut d_head, e, self.plan.rotation(), -1.0);
            for (row, part) in d_q.chunks_exact_mut(width).zip(d_head.chunks_exact(e)) {
                row[head * e..][..e].copy_from_slice(part);
            }
        }
        turn(&mut d_k, e, self.plan.rotation(), -1.0);
        HeadGradients {
            q: d_q,
            k: d_k,
            v: d_v,
        }
    }
}

/// Turns each row by its position, or back with `direction` −1: the transpose of a rotation is its inverse.
fn turn(head: &mut [f32], head_dim: usize, rotation: &Rotation, direction: f32) {
    turn_rows(head, head_dim, &rotation.cos, &rotation.sin, direction);
}

vectorized! {
    fn turn_rows(head: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], direction: f32) {
        let half = head_dim / 2;
        let tables = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (row, (cos, sin)) in head.chunks_exact_mut(head_dim).zip(tables) {
            let (first, second) = row.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                let (x, y, sin) = (*a, *b, sin * direction);
                *a = x * cos - y * sin;
                *b = y * cos + x * sin;
            }
        }
    }

    /// Softmax of `scale · scores` over `from..to`; the others get no weight.
    fn softmax(scores: &mut [f32], from: usize, to: usize, scale: f32) {
        let (before, rest) = scores.split_at_mut(from);
        let (seen, after) = rest.split_at_mut(to - from);
        before.fill(0.0);
        after.fill(0.0);
        let largest = max(seen);
        for score in seen.iter_mut() {
            *score = exp((*score - largest) * scale);
        }
        let inverse = 1.0 / sum(seen);
        for score in seen {
            *score *= inverse;
        }
    }

    /// From weights and their gradients to gradients of the unscaled scores, in place of the latter.
    fn softmax_backward(weights: &[f32], n_keys: usize, scale: f32, d_weights: &mut [f32]) {
        for (weights, d_weights) in weights.chunks_exact(n_keys).zip(d_weights.chunks_exact_mut(n_keys)) {
            let along = dot(weights, d_weights);
            for (weight, d_weight) in weights.iter().zip(d_weights) {
                *d_weight = weight * (*d_weight - along) * scale;
            }
        }
    }
}

//! Linear layers that read one input, with their adapters: one product for all of them (Hu et al. 2021, "LoRA").
//!
//! Legend: n tokens, d columns in, o columns out of all parts together, r ranks of all parts together.

mod graph;
mod kernel;

use std::ops::Range;
use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, ExtensionType, Flex};
use burn::tensor::Tensor;

use super::composed::{Composed, is_plain};
use super::{FusedOps, WeightOn, rms_norm, swiglu};
use crate::columns::add_to_columns;
use crate::precision::cast;
use crate::weight::Weight;

pub(super) use graph::differentiated;
pub(super) use kernel::forward;

/// What a linear layer reads, and how it is made: of what has to be kept for the backward pass, the source takes the least
/// memory, and the rest is soon made again.
#[derive(Debug, Clone, ExtensionType)]
pub(crate) enum Source<B: Backend> {
    /// It reads the source itself.
    Given(FloatTensor<B>),
    /// The source, normalised.
    Normed {
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        epsilon: f32,
    },
    /// The source's halves through [`swiglu`].
    Gated(FloatTensor<B>),
}

/// A layer's source among the model's tensors.
pub(crate) type Input = Source<Dispatch>;

impl Input {
    pub(crate) fn given(x: Tensor<2>) -> Self {
        Self::Given(x.into_dispatch())
    }

    /// As [`rms_norm`].
    pub(crate) fn normed(x: Tensor<2>, weight: &Tensor<1>, epsilon: f32) -> Self {
        Self::Normed {
            x: x.into_dispatch(),
            weight: weight.clone().into_dispatch(),
            epsilon,
        }
    }

    /// As [`swiglu`].
    pub(crate) fn gated(gate_up: Tensor<2>) -> Self {
        Self::Gated(gate_up.into_dispatch())
    }
}

impl<B: Composed> Source<B> {
    /// What the layer reads.
    pub(crate) fn value(self) -> Tensor<2> {
        match self {
            Self::Given(x) => B::tensor(x),
            Self::Normed { x, weight, epsilon } => {
                rms_norm(B::tensor(x), &B::tensor(weight), epsilon)
            }
            Self::Gated(gate_up) => swiglu(B::tensor(gate_up)),
        }
    }

    fn source(&self) -> Tensor<2> {
        match self {
            Self::Given(x) | Self::Normed { x, .. } | Self::Gated(x) => B::tensor(x.clone()),
        }
    }
}

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

/// `x·Wᵀ`, and in the columns of each part `+ scale · (x·A)·B` of that part, with x what `input` stands for.
///
/// # Shapes
/// x: `[n, d]`, `weight`: `[o, d]`, `a`: `[d, r]` with the parts' factors side by side, `b`: the parts' factors
/// `[rank, columns]` one behind the other, as one line; returns `[n, o]`.
pub(crate) fn lora_linear(
    input: Input,
    weight: &Weight,
    a: Tensor<2>,
    b: Tensor<1>,
    plan: Arc<LoraPlan>,
) -> Tensor<2> {
    if is_plain(&input.source()) {
        return plain(input.value(), weight, a, &b, &plan);
    }
    let (a, b) = (a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(Dispatch::lora_linear(
        input,
        weight.on_dispatch(),
        a,
        b,
        plan,
    ))
}

/// The definition.
fn plain(x: Tensor<2>, weight: &Weight, a: Tensor<2>, b: &Tensor<1>, plan: &LoraPlan) -> Tensor<2> {
    let (a, b) = (cast(a, x.dtype()), cast(b.clone(), x.dtype()));
    let y = weight.product(x.clone());
    let u = x.matmul(a).mul_scalar(plan.scale);
    let added = plan.placed().map(|part| {
        let b = b.clone().narrow(0, part.b.start, part.b.len());
        let b = b.reshape([part.ranks.len(), part.columns.len()]);
        let u = u.clone().narrow(1, part.ranks.start, part.ranks.len());
        (part.columns, u.matmul(b))
    });
    add_to_columns(&y, added)
}

pub(super) fn composed<B: Composed>(
    source: Source<B>,
    weight: WeightOn<B>,
    [a, b]: [FloatTensor<B>; 2],
    plan: &LoraPlan,
) -> FloatTensor<B> {
    let (a, b) = (B::tensor(a), B::tensor(b));
    B::primitive(plain(source.value(), &weight.weight(), a, &b, plan))
}

/// What the backward pass needs of the forward one.
#[derive(Debug, Clone)]
struct LoraState {
    source: Source<Flex>,
    weight: WeightOn<Flex>,
    a: FlexTensor,
    b: FlexTensor,
    /// `scale · x·A`
    u: FlexTensor,
    plan: Arc<LoraPlan>,
}

#[cfg(test)]
mod tests {
    use super::super::testing::{agree, agree_within, random, random_line};
    use super::*;
    use crate::blocks::testing::every_kind;

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
            // Large enough to be spread over threads.
            (150, 192, 320, plan(&[(0..192, 8), (192..320, 8)])),
        ] {
            let weight = Weight::Dense(random::<2>("weight", [o, d]).autodiff());
            let r = plan.parts.iter().map(|part| part.rank).sum();
            let n_b = plan
                .parts
                .iter()
                .map(|part| part.rank * part.columns.len())
                .sum();
            let norm = random::<1>("norm", [d]).autodiff();
            let sources: [(usize, &(dyn Fn(Tensor<2>) -> Input + Sync)); 3] = [
                (d, &Input::given),
                (d, &|x| Input::normed(x, &norm, 1e-5)),
                (2 * d, &Input::gated),
            ];
            for (width, input) in sources {
                let x = random::<2>("x", [n, width]);
                let line = |b: Tensor<2>| b.flatten::<1>(0, 1);
                agree(
                    [x, random("a", [d, r]), random_line("b", n_b)],
                    |[x, a, b]| lora_linear(input(x), &weight, a, line(b), plan.clone()),
                    |[x, a, b]| plain(input(x).value(), &weight, a, &line(b), &plan),
                );
            }
        }
    }

    #[test]
    fn with_a_narrow_base_it_is_the_plain_one_but_for_rounding() {
        for (n, d, o, plan) in [
            (3, 8, 12, plan(&[(0..12, 4)])),
            (70, 48, 96, plan(&[(8..24, 2), (40..56, 40)])),
        ] {
            let weight = random::<2>("weight", [o, d]);
            let weight = weight.cast(burn::tensor::FloatDType::BF16);
            let weight = Weight::Dense(weight.autodiff());
            let r = plan.parts.iter().map(|part| part.rank).sum();
            let n_b = plan
                .parts
                .iter()
                .map(|part| part.rank * part.columns.len())
                .sum();
            agree_within(
                2e-2,
                [
                    random("x", [n, d]),
                    random("a", [d, r]),
                    random_line("b", n_b),
                ],
                |[x, a, b]| {
                    let b = b.flatten::<1>(0, 1);
                    lora_linear(Input::given(x), &weight, a, b, plan.clone())
                },
                |[x, a, b]| plain(x, &weight, a, &b.flatten::<1>(0, 1), &plan),
            );
        }
    }

    #[test]
    fn with_a_base_in_blocks_it_is_the_plain_one_but_for_rounding() {
        for (n, d, o, plan) in [
            (1, 256, 12, plan(&[(0..12, 4)])),
            (70, 512, 96, plan(&[(8..24, 2), (40..56, 40)])),
            (9, 40, 33, plan(&[(0..33, 2)])),
        ] {
            let r = plan.parts.iter().map(|part| part.rank).sum();
            let n_b = plan
                .parts
                .iter()
                .map(|part| part.rank * part.columns.len())
                .sum();
            for blocks in every_kind(o, d) {
                let weight = Weight::Blocks(Arc::new(blocks));
                agree_within(
                    2e-2,
                    [
                        random("x", [n, d]),
                        random("a", [d, r]),
                        random_line("b", n_b),
                    ],
                    |[x, a, b]| {
                        let b = b.flatten::<1>(0, 1);
                        lora_linear(Input::given(x), &weight, a, b, plan.clone())
                    },
                    |[x, a, b]| plain(x, &weight, a, &b.flatten::<1>(0, 1), &plan),
                );
            }
        }
    }
}

//! Linear layers that read one input, as one product, with a frozen weight and optional adapters.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use crate::columns::{add_to_columns, join};
use crate::device::n_threads;
use crate::lora::{LayerLora, LoraSlot, Target};
use crate::ops::{Input, LoraPart, LoraPlan, linear, lora_linear};
use crate::precision::cast;

/// `y = x·Wᵀ + bias`, the rows of W being those of its parts one below the other, each as Hugging Face stores it.
///
/// W is not tracked, so no gradient of its size is ever made.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[out, in]`
    pub(crate) weight: Tensor<2>,
    pub(crate) bias: Option<Tensor<1>>,
    pub(crate) parts: Arc<[Part]>,
}

/// One matrix of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) target: Target,
    /// Its columns of the output.
    pub(crate) columns: Range<usize>,
}

impl Linear {
    /// # Shapes
    /// `input`: `[n_tokens, in]`; returns `[n_tokens, out]`.
    pub(crate) fn forward(&self, input: Input, lora: LayerLora<'_>) -> Tensor<2> {
        let slots: Vec<_> = self
            .parts
            .iter()
            .filter_map(|part| Some((part, lora.slot(part.target)?)))
            .collect();
        let y = if slots.is_empty() {
            project(input.value(), &self.weight)
        } else if slots.iter().any(|(_, slot)| slot.drops()) {
            self.with_dropout(&input.value(), &slots)
        } else {
            self.adapted(input, &slots)
        };
        match &self.bias {
            Some(bias) => {
                let bias = cast(bias.clone(), y.dtype());
                y + bias.unsqueeze()
            }
            None => y,
        }
    }

    fn adapted(&self, input: Input, slots: &[(&Part, LoraSlot<'_>)]) -> Tensor<2> {
        let parts = slots.iter().map(|(part, slot)| LoraPart {
            columns: part.columns.clone(),
            rank: slot.pair.a.dims()[1],
        });
        #[expect(clippy::cast_possible_truncation, reason = "computed in f32")]
        let scale = slots[0].1.scale as f32;
        let plan = LoraPlan {
            parts: parts.collect(),
            scale,
        };
        let a = slots.iter().map(|(_, slot)| slot.pair.a.clone());
        let b = slots
            .iter()
            .map(|(_, slot)| slot.pair.b.clone().flatten(0, 1));
        let (a, b) = (join(a.collect(), 1), join(b.collect(), 0));
        lora_linear(input, &self.weight, a, b, Arc::new(plan))
    }

    /// Each adapter sees an input of its own, so they share nothing.
    fn with_dropout(&self, x: &Tensor<2>, slots: &[(&Part, LoraSlot<'_>)]) -> Tensor<2> {
        let y = project(x.clone(), &self.weight);
        let added = slots
            .iter()
            .map(|(part, slot)| (part.columns.clone(), slot.forward(x.clone())));
        add_to_columns(&y, added)
    }

    pub(crate) fn autodiff(&self) -> Self {
        Self {
            weight: self.weight.clone().autodiff(),
            bias: self.bias.as_ref().map(|bias| bias.clone().autodiff()),
            parts: self.parts.clone(),
        }
    }
}

/// Below this many weights a second thread costs more than it brings.
const SPLIT_MIN_WEIGHTS: usize = 1 << 17;

/// `x·Wᵀ`.
///
/// A product with a single row is bound by reading W, and the matrix kernels give it one thread
/// only; halves of W are views, so two cores can read one each.
pub(crate) fn project(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let [n_tokens, n_in] = x.dims();
    let [n_out, _] = weight.dims();
    if n_tokens > 1 || weight.dtype() != DType::F32 {
        return linear(x, weight);
    }
    let parts = n_threads(&x.device()).min(n_out * n_in / SPLIT_MIN_WEIGHTS);
    project_row(x, weight, n_out, parts)
}

/// Recursively halves the rows of W over `parts` threads.
fn project_row(x: Tensor<2>, weight: &Tensor<2>, n_out: usize, parts: usize) -> Tensor<2> {
    if parts < 2 {
        return x.matmul(weight.clone().transpose());
    }
    let (left, right) = (parts / 2, parts - parts / 2);
    let middle = n_out * left / parts;
    let (first, second) = rayon::join(
        || {
            project_row(
                x.clone(),
                &weight.clone().narrow(0, 0, middle),
                middle,
                left,
            )
        },
        || {
            let rest = n_out - middle;
            project_row(
                x.clone(),
                &weight.clone().narrow(0, middle, rest),
                rest,
                right,
            )
        },
    );
    Tensor::cat(vec![first, second], 1)
}

//! Linear layers that read one input, as one product, with optional adapters.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use crate::columns::{add_to_columns, join};
use crate::device::n_threads;
use crate::dora::RowSquares;
use crate::lora::{LayerLora, LoraSlot, Target};
use crate::ops::{Input, LoraPart, LoraPlan, linear, lora_linear, scale_columns};
use crate::precision::cast;
use crate::weight::Weight;

/// `y = x·Wᵀ + bias`, the rows of W being those of its parts one below the other, each as Hugging Face stores it.
///
/// W is not tracked, so no gradient of its size is ever made, unless the model's own weights learn.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[out, in]`
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Tensor<1>>,
    pub(crate) parts: Arc<[Part]>,
    pub(crate) row_squares: RowSquares,
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
        let y = lora_linear(input, &self.weight, a, b, Arc::new(plan));
        match self.gains(slots) {
            Some(gains) => scale_columns(y, gains),
            None => y,
        }
    }

    /// What each column of the output is multiplied with; `None` when the adapters learn no magnitudes.
    ///
    /// # Shapes
    /// `[1, out]`
    fn gains(&self, slots: &[(&Part, LoraSlot<'_>)]) -> Option<Tensor<2>> {
        let gains = slots.iter().map(|(part, slot)| self.gain(part, slot));
        let gains: Vec<_> = gains.collect::<Option<_>>()?;
        let device = gains[0].device();
        let mut adapted = slots.iter().map(|(part, _)| *part).zip(gains).peekable();
        let columns =
            self.parts.iter().map(
                |part| match adapted.next_if(|(adapted, _)| *adapted == part) {
                    Some((_, gain)) => gain,
                    None => Tensor::ones([1, part.columns.len()], &device),
                },
            );
        Some(join(columns.collect(), 1))
    }

    /// Each adapter sees an input of its own, so they share nothing.
    fn with_dropout(&self, x: &Tensor<2>, slots: &[(&Part, LoraSlot<'_>)]) -> Tensor<2> {
        let y = project(x.clone(), &self.weight);
        let added = slots
            .iter()
            .map(|(part, slot)| (part.columns.clone(), self.added(x, part, slot)));
        add_to_columns(&y, added)
    }

    /// What an adapter that sees a thinned input adds to the base's product with the whole one. A magnitude scales the
    /// base's product with the thinned input too, as in PEFT.
    fn added(&self, x: &Tensor<2>, part: &Part, slot: &LoraSlot<'_>) -> Tensor<2> {
        let x = slot.thinned(x.clone());
        let update = slot.update(x.clone());
        match self.gain(part, slot) {
            None => update,
            Some(gain) => {
                let gain = cast(gain, x.dtype());
                project(x, &self.rows(part)) * gain.clone().sub_scalar(1.0) + update * gain
            }
        }
    }

    /// The rows of one part.
    pub(crate) fn rows(&self, part: &Part) -> Weight {
        self.weight.narrow(part.columns.clone())
    }

    pub(crate) fn autodiff(&self) -> Self {
        Self {
            weight: self.weight.autodiff(),
            bias: self.bias.as_ref().map(|bias| bias.clone().autodiff()),
            parts: self.parts.clone(),
            row_squares: self.row_squares.clone(),
        }
    }
}

/// Below this many weights a second thread costs more than it brings.
const SPLIT_MIN_WEIGHTS: usize = 1 << 17;

/// `x·Wᵀ`.
///
/// A product with a single row is bound by reading W, and the matrix kernels give it one thread
/// only; halves of W are views, so two cores can read one each.
pub(crate) fn project(x: Tensor<2>, weight: &Weight) -> Tensor<2> {
    let [n_tokens, n_in] = x.dims();
    let [n_out, _] = weight.dims();
    let weight = match weight {
        Weight::Dense(weight) if n_tokens == 1 && weight.dtype() == DType::F32 => weight,
        _ => return linear(x, weight),
    };
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

//! Adapted layers over a base in bfloat16 or in blocks: the adapter's products are made in bfloat16 as the base's are, and with
//! them.

use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;
use half::bf16;

use super::{LoraPlan, LoraState};
use crate::ops::Kernel;
use crate::ops::cpu::bf16::{Beside, NarrowRows, round_all};
use crate::ops::cpu::weight::backward_beside;
use crate::ops::cpu::{dims, tensor, values};
use crate::profile::{Part, measure};

/// The factors of all parts as one adapter of `r` ranks and `o` columns.
pub(super) fn beside(a: &[f32], b: &[f32], [r, o]: [usize; 2], plan: &LoraPlan) -> Beside {
    let mut wide = vec![bf16::ZERO; r * o];
    for part in plan.placed() {
        let rows = b[part.b].chunks_exact(part.columns.len());
        for (rank, row) in part.ranks.zip(rows) {
            round_all(row, &mut wide[rank * o..][part.columns.clone()]);
        }
    }
    let mut narrow = vec![bf16::ZERO; a.len()];
    round_all(a, &mut narrow);
    Beside {
        a: narrow,
        b: wide,
        r,
        scale: plan.scale,
    }
}

/// As [`super::backward`].
pub(super) fn backward(
    state: &LoraState,
    gradient: &FlexTensor,
    wants_source: bool,
    kernel: Kernel,
) -> (Option<FlexTensor>, FlexTensor, FlexTensor) {
    let (a, b) = (state.a.to_contiguous(), state.b.to_contiguous());
    let gradient = gradient.to_contiguous();
    let ([n, o], [d, r]) = (dims(&gradient), dims(&a));
    let beside = beside(values(&a), values(&b), [r, o], &state.plan);
    let (v, d_x, dy) = backward_beside(&gradient, &state.weight, &beside, kernel, wants_source);
    let mut d_b = Vec::with_capacity(values(&b).len());
    measure(Part::Lora, || {
        for part in state.plan.placed() {
            let u = values(&state.u);
            d_b.extend(dy.gradient(u, r, &part.ranks, &part.columns, kernel));
        }
    });
    drop(dy);
    let x = state.source.input();
    let d_a = measure(Part::Lora, || {
        let x = NarrowRows::new(values(&x), d);
        let d_a = x.gradient(&v, r, &(0..r), &(0..d), kernel);
        transposed(&d_a, d)
    });
    drop(x);
    let n_b = d_b.len();
    let d_source = wants_source.then(|| state.source.gradient(tensor(d_x, [n, d])));
    (d_source, tensor(d_a, [d, r]), tensor(d_b, [n_b]))
}

/// The numbers as the products read them.
pub(super) fn narrowed(x: &FlexTensor) -> FlexTensor {
    let x = x.to_contiguous();
    let mut narrow = vec![bf16::ZERO; values(&x).len()];
    round_all(values(&x), &mut narrow);
    FlexTensor::from_data(TensorData::new(narrow, dims(&x)))
}

/// What [`narrowed`] kept, in f32 again.
pub(super) fn widened(x: &FlexTensor) -> FlexTensor {
    let numbers = x.as_slice::<bf16>().expect("kept as it was made");
    let wide = numbers.iter().map(|number| number.to_f32()).collect();
    tensor(wide, dims(x))
}

fn transposed(rows: &[f32], width: usize) -> Vec<f32> {
    let column = |column| rows[column..].iter().step_by(width);
    (0..width).flat_map(column).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ops::lora_linear::kernel::{backward, forward};
    use crate::ops::lora_linear::{LoraPart, Source};
    use crate::ops::testing::random_values;

    #[test]
    fn an_input_that_is_kept_narrow_gives_the_same_gradients() {
        let [n, d, o, r] = [70, 48, 96, 4];
        let random =
            |name, shape: [usize; 2]| tensor(random_values(name, shape[0] * shape[1]), shape);
        let weight = narrowed(&random("weight", [o, d])).into();
        let (x, dy) = (random("x", [n, d]), random("dy", [n, o]));
        let (a, b) = (random("a", [d, r]), random("b", [r, o]));
        let part = LoraPart {
            columns: 0..o,
            rank: r,
        };
        let plan = LoraPlan {
            parts: vec![part],
            scale: 1.5,
        };
        let wide = Source::Given(x);
        let (_, u) = forward(&wide, &weight, &a, &b, &plan);
        let gradients = |source| {
            let state = LoraState {
                source,
                weight: weight.clone(),
                a: a.clone(),
                b: b.clone(),
                u: u.clone(),
                plan: Arc::new(plan.clone()),
            };
            let (d_x, d_a, d_b) = backward(&state, &dy, true);
            [d_x.unwrap(), d_a, d_b].map(|gradient| values(&gradient).to_vec())
        };
        let narrow = wide.clone().kept(&weight);
        assert_eq!(gradients(narrow), gradients(wide));
    }
}

//! `dx` as with a frozen weight, and `dw = Σ dy·x / rms(x)` over all rows.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;

use super::{Both, sum_of_rows};
use crate::ops::cpu::vector::{dot, vectorized};
use crate::ops::cpu::{tensor, values};
use crate::ops::graph::{OnGraph, binary};
use crate::ops::rms_norm;
use crate::profile::{Part, measure};

pub(in crate::ops) fn differentiated<C: CheckpointStrategy>(
    x: OnGraph,
    weight: OnGraph,
    epsilon: f32,
) -> OnGraph {
    binary::<Flex, C, _>(
        [x, weight],
        |[x, weight]| {
            let out = rms_norm::forward(&x, &weight, epsilon);
            (out, ([x, weight], epsilon))
        },
        |(inputs, epsilon), gradient, wanted| backward(&inputs, epsilon, &gradient, wanted),
    )
}

fn backward(
    [x, weight]: &Both<FlexTensor>,
    epsilon: f32,
    gradient: &FlexTensor,
    [wants_x, wants_weight]: Both<bool>,
) -> Both<Option<FlexTensor>> {
    let d_x = wants_x.then(|| rms_norm::backward(x, weight, epsilon, gradient));
    let d_weight = wants_weight.then(|| {
        let (x, gradient) = (x.to_contiguous(), gradient.to_contiguous());
        let width = weight.layout().shape()[0];
        let sums = measure(Part::Elementwise, || {
            sum_of_rows([values(&x), values(&gradient)], width, |x, dy, sum| {
                add_rows(x, dy, epsilon, sum);
            })
        });
        tensor(sums, [width])
    });
    [d_x, d_weight]
}

vectorized! {
    fn add_rows(x: &[f32], dy: &[f32], epsilon: f32, sum: &mut [f32]) {
        let width = sum.len();
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
            #[expect(clippy::cast_precision_loss, reason = "widths are small")]
            let scale = 1.0 / (dot(x, x) / width as f32 + epsilon).sqrt();
            for ((sum, x), dy) in sum.iter_mut().zip(x).zip(dy) {
                *sum += dy * x * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::rms_norm;
    use crate::ops::testing::{agree, plainly, random, random_line};

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [rows, width] in [[1, 16], [5, 48], [600, 576], [7, 33]] {
            agree(
                [
                    random::<2>("x", [rows, width]),
                    random_line("weight", width),
                ],
                |[x, weight]| rms_norm(x, &weight.flatten(0, 1), 1e-5),
                |[x, weight]| plainly(|| rms_norm(x, &weight.flatten(0, 1), 1e-5)),
            );
        }
    }
}

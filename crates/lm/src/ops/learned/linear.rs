//! `dx = dy·W` and `dW = dyᵀ·x`.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;

use super::Both;
use crate::ops::cpu::matmul::{Matrix, product};
use crate::ops::cpu::{dims, tensor, values};
use crate::ops::graph::{OnGraph, binary};
use crate::ops::linear;
use crate::profile::{Part, measure};

pub(in crate::ops) fn differentiated<C: CheckpointStrategy>(
    x: OnGraph,
    weight: OnGraph,
) -> OnGraph {
    binary::<Flex, C, _>(
        [x, weight],
        |[x, weight]| (linear::forward(&x, &weight.clone().into()), [x, weight]),
        |inputs, gradient, wanted| backward(&inputs, &gradient, wanted),
    )
}

fn backward(
    [x, weight]: &Both<FlexTensor>,
    gradient: &FlexTensor,
    [wants_x, wants_weight]: Both<bool>,
) -> Both<Option<FlexTensor>> {
    let gradient = gradient.to_contiguous();
    let d_x = wants_x.then(|| linear::backward(&weight.clone().into(), &gradient));
    let d_weight = wants_weight.then(|| {
        let x = x.to_contiguous();
        let ([_, d], [_, o]) = (dims(&x), dims(&gradient));
        let dy_t = Matrix::new(values(&gradient), o).transposed();
        let d_weight = measure(Part::Matmul, || product(dy_t, Matrix::new(values(&x), d)));
        tensor(d_weight, [o, d])
    });
    [d_x, d_weight]
}

#[cfg(test)]
mod tests {
    use crate::ops::linear;
    use crate::ops::testing::{agree, random};
    use crate::precision::product;
    use crate::weight::Weight;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        for [n, d, o] in [[1, 16, 8], [33, 48, 40], [130, 64, 257], [200, 192, 576]] {
            agree(
                [random("x", [n, d]), random("weight", [o, d])],
                |[x, weight]| linear(x, &Weight::Dense(weight)),
                |[x, weight]| product(x, &weight),
            );
        }
    }
}

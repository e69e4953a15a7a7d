//! On a GPU: a unit for each element of the result.

#![expect(
    clippy::used_underscore_binding,
    reason = "the macro reads what names a kernel's numbers"
)]

use burn::backend::{Shape, TensorMetadata};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::ops::cube::{elements, empty_like};

pub(in crate::ops) fn forward(gate_up: CubeTensor) -> CubeTensor {
    let gate_up = into_contiguous(gate_up);
    let [n, both] = gate_up.shape().dims();
    let out = empty_like(&gate_up, Shape::new([n, both / 2]));
    let (client, element) = (gate_up.client.clone(), elements(&gate_up));
    let n_elements = n * both / 2;
    let units = CubeDim::new(&client, n_elements);
    swiglu_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, n_elements, units),
        units,
        gate_up.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        both / 2,
        element,
    );
    out
}

pub(in crate::ops) fn backward(gate_up: CubeTensor, gradient: CubeTensor) -> CubeTensor {
    let (gate_up, gradient) = (into_contiguous(gate_up), into_contiguous(gradient));
    let [n, both] = gate_up.shape().dims();
    let out = empty_like(&gate_up, gate_up.shape());
    let (client, element) = (gate_up.client.clone(), elements(&gate_up));
    let n_elements = n * both / 2;
    let units = CubeDim::new(&client, n_elements);
    swiglu_backward_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, n_elements, units),
        units,
        gate_up.into_buffer_arg(),
        gradient.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        both / 2,
        element,
    );
    out
}

#[cube(launch)]
pub(in crate::ops) fn swiglu_kernel<F: Float>(
    gate_up: &[F],
    out: &mut [F],
    #[comptime] width: usize,
    #[define(F)] _element: ElemType,
) {
    let place = ABSOLUTE_POS;
    if place >= out.len() {
        terminate!();
    }
    let gate_place = place + place / width * width;
    let gate = f32::cast_from(gate_up[gate_place]);
    let up = f32::cast_from(gate_up[gate_place + width]);
    out[place] = F::cast_from(gate * sigmoid(gate) * up);
}

/// With σ = sigmoid(gate): `dgate = dy·up·σ·(1 + gate·(1 − σ))`, `dup = dy·gate·σ`.
#[cube(launch)]
pub(in crate::ops) fn swiglu_backward_kernel<F: Float>(
    gate_up: &[F],
    gradient: &[F],
    out: &mut [F],
    #[comptime] width: usize,
    #[define(F)] _element: ElemType,
) {
    let place = ABSOLUTE_POS;
    if place >= gradient.len() {
        terminate!();
    }
    let gate_place = place + place / width * width;
    let gate = f32::cast_from(gate_up[gate_place]);
    let up = f32::cast_from(gate_up[gate_place + width]);
    let dy = f32::cast_from(gradient[place]);
    let sigmoid = sigmoid(gate);
    out[gate_place] = F::cast_from(dy * up * sigmoid * (1.0 + gate * (1.0 - sigmoid)));
    out[gate_place + width] = F::cast_from(dy * gate * sigmoid);
}

/// The exponential is of a number that is not positive: it never overflows, which WGSL leaves undefined.
#[cube]
fn sigmoid(x: f32) -> f32 {
    let small = (-x.abs()).exp();
    let rest = small / (1.0 + small);
    select(x < 0.0, rest, 1.0 - rest)
}

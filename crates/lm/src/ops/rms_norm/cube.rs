//! On a GPU: a cube for each row.

#![expect(
    clippy::used_underscore_binding,
    reason = "the macro reads what names a kernel's numbers"
)]
#![expect(clippy::cast_precision_loss, reason = "widths are small")]

use burn::backend::TensorMetadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::ops::cube::{elements, empty_like, sum_over_cube};

/// Units that work on one row together; a power of two.
pub(in crate::ops) const UNITS: u32 = 256;

pub(in crate::ops) fn forward(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let out = empty_like(&x, x.shape());
    let (client, element) = (x.client.clone(), elements(&x));
    let (width, n_rows) = rows(&x, &weight);
    let cube = CubeDim::new_1d(UNITS);
    rms_norm_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, n_rows * UNITS as usize, cube),
        cube,
        x.into_buffer_arg(),
        weight.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        n_rows,
        epsilon,
        width,
        UNITS as usize,
        element,
    );
    out
}

pub(in crate::ops) fn backward(
    x: CubeTensor,
    weight: CubeTensor,
    epsilon: f32,
    gradient: CubeTensor,
) -> CubeTensor {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let gradient = into_contiguous(gradient);
    let out = empty_like(&x, x.shape());
    let (client, element) = (x.client.clone(), elements(&x));
    let (width, n_rows) = rows(&x, &weight);
    let cube = CubeDim::new_1d(UNITS);
    rms_norm_backward_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, n_rows * UNITS as usize, cube),
        cube,
        x.into_buffer_arg(),
        weight.into_buffer_arg(),
        gradient.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        n_rows,
        epsilon,
        width,
        UNITS as usize,
        element,
    );
    out
}

/// Their width, and how many there are.
fn rows(x: &CubeTensor, weight: &CubeTensor) -> (usize, usize) {
    let width = weight.shape().num_elements();
    (width, x.shape().num_elements() / width)
}

#[cube(launch)]
pub(in crate::ops) fn rms_norm_kernel<F: Float>(
    x: &[F],
    weight: &[f32],
    out: &mut [F],
    n_rows: usize,
    epsilon: f32,
    #[comptime] width: usize,
    #[comptime] units: usize,
    #[define(F)] _element: ElemType,
) {
    // The grid may be larger than the rows are many.
    if CUBE_POS >= n_rows {
        terminate!();
    }
    let first = CUBE_POS * width;
    let unit = UNIT_POS as usize;
    let mut squares = 0.0f32;
    for column in range_stepped(unit, width, units) {
        let value = f32::cast_from(x[first + column]);
        squares += value * value;
    }
    let squares = sum_over_cube(squares, units);
    let scale = 1.0 / (squares / comptime!(width as f32) + epsilon).sqrt();
    for column in range_stepped(unit, width, units) {
        let value = f32::cast_from(x[first + column]);
        out[first + column] = F::cast_from(value * scale * weight[column]);
    }
}

/// With s = 1/rms and g = dy·w: `dx = s·g − x·s³·mean(g·x)`.
#[cube(launch)]
pub(in crate::ops) fn rms_norm_backward_kernel<F: Float>(
    x: &[F],
    weight: &[f32],
    gradient: &[F],
    out: &mut [F],
    n_rows: usize,
    epsilon: f32,
    #[comptime] width: usize,
    #[comptime] units: usize,
    #[define(F)] _element: ElemType,
) {
    if CUBE_POS >= n_rows {
        terminate!();
    }
    let first = CUBE_POS * width;
    let unit = UNIT_POS as usize;
    let mut squares = 0.0f32;
    let mut along = 0.0f32;
    for column in range_stepped(unit, width, units) {
        let value = f32::cast_from(x[first + column]);
        squares += value * value;
        along += value * weight[column] * f32::cast_from(gradient[first + column]);
    }
    let squares = sum_over_cube(squares, units);
    let along = sum_over_cube(along, units);
    let inverse_width = comptime!(1.0 / width as f32);
    let scale = 1.0 / (squares * inverse_width + epsilon).sqrt();
    let along = along * scale * scale * scale * inverse_width;
    for column in range_stepped(unit, width, units) {
        let value = f32::cast_from(x[first + column]);
        let weighted = weight[column] * f32::cast_from(gradient[first + column]);
        out[first + column] = F::cast_from(weighted * scale - value * along);
    }
}

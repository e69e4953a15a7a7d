//! Products on CPUs that do not multiply bfloat16: the matrix is widened to f32 a piece at a time.

use half::bf16;
use rayon::prelude::*;

use super::factor::Factor;
use crate::ops::cpu::matmul::{Into, Matrix, MatrixMut, matmul};
use crate::ops::cpu::vector::vectorized;

vectorized! {
    /// As many numbers as there is room for.
    pub(super) fn widen(numbers: &[bf16], out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(numbers) {
            *out = f32::from_bits(u32::from(value.to_bits()) << 16);
        }
    }
}

/// Rows of W that are widened at a time.
const WIDENED_ROWS: usize = 128;
/// Rows of the left factor that a task takes. Each task widens W for itself, which costs little beside its products.
const ROWS: usize = 256;

/// As [`super::times_transposed`].
pub(super) fn times_transposed(x: &[f32], weight: &impl Factor) -> Vec<f32> {
    let [n, k] = weight.dims();
    let mut out = vec![0.0; x.len() / k * n];
    let blocks = out.par_chunks_mut(ROWS * n).zip(x.par_chunks(ROWS * k));
    blocks.for_each(|(out, x)| {
        pieces(weight, |first, n_rows, wide| {
            let columns = MatrixMut::strided(&mut out[first..], [x.len() / k, n_rows], n);
            let wide = Matrix::new(wide, k).transposed();
            matmul(columns, Matrix::new(x, k), wide, Into::Overwrite);
        });
    });
    out
}

/// As [`super::times`].
pub(super) fn times(y: &[f32], weight: &impl Factor) -> Vec<f32> {
    let [k, n] = weight.dims();
    let mut out = vec![0.0; y.len() / k * n];
    let blocks = out.par_chunks_mut(ROWS * n).zip(y.par_chunks(ROWS * k));
    blocks.for_each(|(out, y)| {
        pieces(weight, |first, n_rows, wide| {
            let columns = Matrix::strided(&y[first..], [y.len() / k, n_rows], k);
            let wide = Matrix::new(wide, n);
            matmul(MatrixMut::new(out, n), columns, wide, Into::Add);
        });
    });
    out
}

/// Widens the matrix piece by piece; `each` is given the first row of a piece, the number of its rows and their values.
fn pieces(weight: &impl Factor, mut each: impl FnMut(usize, usize, &[f32])) {
    let [n_rows, columns] = weight.dims();
    let mut wide = vec![0.0; WIDENED_ROWS.min(n_rows) * columns];
    for first in (0..n_rows).step_by(WIDENED_ROWS) {
        let n = WIDENED_ROWS.min(n_rows - first);
        let wide = &mut wide[..n * columns];
        weight.widen(first..first + n, wide);
        each(first, n, wide);
    }
}

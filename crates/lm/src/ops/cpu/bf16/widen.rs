//! Products on CPUs that do not multiply bfloat16: the matrix is widened to f32 a piece at a time.

use half::bf16;
use rayon::prelude::*;

use crate::ops::cpu::matmul::{Into, Matrix, MatrixMut, matmul};
use crate::ops::cpu::vector::vectorized;

vectorized! {
    fn widen(row: &[bf16], out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(row) {
            *out = f32::from_bits(u32::from(value.to_bits()) << 16);
        }
    }
}

/// Rows of W that are widened at a time.
const WIDENED_ROWS: usize = 128;
/// Rows of the left factor that a task takes. Each task widens W for itself, which costs little beside its products.
const ROWS: usize = 256;

/// As [`super::times_transposed`].
pub(super) fn times_transposed(x: &[f32], k: usize, weight: &[bf16]) -> Vec<f32> {
    let (m, n) = (x.len() / k, weight.len() / k);
    let mut out = vec![0.0; m * n];
    let blocks = out.par_chunks_mut(ROWS * n).zip(x.par_chunks(ROWS * k));
    blocks.for_each(|(out, x)| {
        let mut wide = vec![0.0; WIDENED_ROWS * k];
        for (piece, rows) in weight.chunks(WIDENED_ROWS * k).enumerate() {
            let wide = &mut wide[..rows.len()];
            widen(rows, wide);
            let shape = [x.len() / k, rows.len() / k];
            let columns = MatrixMut::strided(&mut out[piece * WIDENED_ROWS..], shape, n);
            let wide = Matrix::new(wide, k).transposed();
            matmul(columns, Matrix::new(x, k), wide, Into::Overwrite);
        }
    });
    out
}

/// As [`super::times`].
pub(super) fn times(y: &[f32], k: usize, weight: &[bf16]) -> Vec<f32> {
    let (m, n) = (y.len() / k, weight.len() / k);
    let mut out = vec![0.0; m * n];
    let blocks = out.par_chunks_mut(ROWS * n).zip(y.par_chunks(ROWS * k));
    blocks.for_each(|(out, y)| {
        let mut wide = vec![0.0; WIDENED_ROWS * n];
        for (piece, rows) in weight.chunks(WIDENED_ROWS * n).enumerate() {
            let wide = &mut wide[..rows.len()];
            widen(rows, wide);
            let shape = [y.len() / k, rows.len() / n];
            let columns = Matrix::strided(&y[piece * WIDENED_ROWS..], shape, k);
            let wide = Matrix::new(wide, n);
            matmul(MatrixMut::new(out, n), columns, wide, Into::Add);
        }
    });
    out
}

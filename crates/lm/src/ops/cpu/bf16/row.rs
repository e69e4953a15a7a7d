//! Products of a single row: each row of the matrix is widened, multiplied and forgotten.

use rayon::prelude::*;

use super::factor::Factor;
use crate::ops::cpu::vector::{dot, vectorized};

/// Rows of the matrix that a task takes.
const ROWS: usize = 64;

vectorized! {
    fn product(a: &[f32], b: &[f32]) -> f32 {
        dot(a, b)
    }
}

/// As [`super::times_transposed`].
pub(super) fn times_transposed(x: &[f32], weight: &impl Factor) -> Vec<f32> {
    let [n, k] = weight.dims();
    let mut out = vec![0.0; n];
    let tasks = out.par_chunks_mut(ROWS).enumerate();
    let room = || vec![0.0; k];
    tasks.for_each_init(room, |wide, (task, out)| {
        for (index, out) in out.iter_mut().enumerate() {
            let row = task * ROWS + index;
            weight.widen(row..row + 1, wide);
            *out = product(x, wide);
        }
    });
    out
}

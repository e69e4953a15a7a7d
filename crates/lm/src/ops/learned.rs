//! The backward passes of operations whose weights learn: the forward passes are those with frozen ones, to the bit, and the
//! weights have gradients beside those of the input.
//!
//! The operations choose them when the weight that they are given has a gradient.

pub(super) mod cross_entropy;
pub(super) mod linear;
pub(super) mod rms_norm;

use rayon::prelude::*;

/// An input and a weight, or whatever belongs to each of the two.
pub(super) type Both<T> = [T; 2];

/// Rows that a task adds up.
const ROWS: usize = 256;

/// What `add` adds up, column by column, of all rows of two matrices. The tasks' sums are added in order, so the result
/// does not depend on who made them.
pub(super) fn sum_of_rows(
    [a, b]: Both<&[f32]>,
    width: usize,
    add: impl Fn(&[f32], &[f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let blocks = a.par_chunks(ROWS * width).zip(b.par_chunks(ROWS * width));
    let sums: Vec<_> = blocks
        .map(|(a, b)| {
            let mut sum = vec![0.0; width];
            add(a, b, &mut sum);
            sum
        })
        .collect();
    let mut total = vec![0.0; width];
    for sum in sums {
        for (total, sum) in total.iter_mut().zip(sum) {
            *total += sum;
        }
    }
    total
}

//! Matrices in the order in which the kernels read them.

use half::bf16;
use rayon::prelude::*;

use super::{HALF, PANEL, STEP, TILE_ROWS};
use crate::ops::cpu::vector::vectorized;

/// `a` in bfloat16, rounded to nearest even, with zeros up to whole tiles.
///
/// # Shapes
/// `a`: `[m, k]`; returns `[m / 16, k / 32, 16, 32]`, m and k rounded up to multiples of 32: a kernel reads a tile of 16
/// rows and 32 summands in one go.
pub(super) fn narrow(a: &[f32], k: usize) -> Vec<bf16> {
    let (m, k_padded) = (a.len() / k, k.next_multiple_of(STEP));
    let mut out = vec![bf16::ZERO; m.next_multiple_of(TILE_ROWS) * k_padded];
    out.par_chunks_mut(HALF * k_padded)
        .zip(a.par_chunks(HALF * k))
        .for_each(|(out, rows)| narrow_rows(rows, k, out));
    out
}

/// To the nearest, of two as near the even one. A NaN may become an infinity.
#[inline(always)]
pub(super) fn round(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    bf16::from_bits(rounded as u16)
}

vectorized! {
    fn narrow_rows(rows: &[f32], k: usize, out: &mut [bf16]) {
        for (index, row) in rows.chunks_exact(k).enumerate() {
            for (from, tile) in row.chunks(STEP).zip(out.chunks_exact_mut(HALF * STEP)) {
                for (out, value) in tile[index * STEP..].iter_mut().zip(from) {
                    *out = round(*value);
                }
            }
        }
    }

    /// Columns `panel` of a matrix with `n` columns: two neighbouring rows, interleaved.
    pub(super) fn pack_columns(weight: &[bf16], n: usize, panel: usize, packed: &mut [bf16]) {
        let first = panel * PANEL;
        let width = PANEL.min(n - first);
        for (pair, rows) in weight.chunks(2 * n).enumerate() {
            let (even, odd) = rows.split_at(n);
            for half in 0..width.div_ceil(HALF) {
                let columns = first + half * HALF..(first + (half + 1) * HALF).min(first + width);
                let packed = packed[packed_place(pair, half)..][..STEP].chunks_exact_mut(2);
                if odd.is_empty() {
                    for (place, even) in packed.zip(&even[columns]) {
                        place[0] = *even;
                    }
                } else {
                    let both = even[columns.clone()].iter().zip(&odd[columns]);
                    for (place, (even, odd)) in packed.zip(both) {
                        place[0] = *even;
                        place[1] = *odd;
                    }
                }
            }
        }
    }

    /// Rows `panel` of a matrix with `k` columns, as the columns of its transpose.
    pub(super) fn pack_rows(weight: &[bf16], k: usize, panel: usize, packed: &mut [bf16]) {
        let rows = &weight[panel * PANEL * k..];
        let n_rows = (rows.len() / k).min(PANEL);
        // By steps, so that what is written stays in the cache until the last row has passed.
        for first in (0..k).step_by(STEP) {
            let last = (first + STEP).min(k);
            for column in 0..n_rows {
                let tile = packed_place(first / 2, column / HALF) + 2 * (column % HALF);
                let row = &rows[column * k..][first..last];
                let places = packed[tile..].chunks_mut(STEP);
                for (pair, place) in row.chunks(2).zip(places) {
                    place[..pair.len()].copy_from_slice(pair);
                }
            }
        }
    }
}

/// Where a pair of summands of half a panel's columns begins: `[k / 32, 2, 16, 16, 2]`.
#[inline(always)]
pub(super) fn packed_place(pair: usize, half: usize) -> usize {
    let (step, pair) = (pair / HALF, pair % HALF);
    ((step * 2 + half) * HALF + pair) * STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        let numbers = [
            1.0,
            1.003_906_3,
            1.011_718_8,
            -3.151_592_7,
            1e-30,
            f32::INFINITY,
        ];
        let found = narrow(&numbers, 6);
        assert_eq!(found[..6], numbers.map(bf16::from_f32));
        assert!(found[6..].iter().all(|value| *value == bf16::ZERO));
    }
}

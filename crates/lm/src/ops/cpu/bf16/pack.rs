//! Matrices in the order in which the kernels read them.

use std::ops::Range;

use half::bf16;

use super::turn::turn;
use super::{HALF, PANEL, STEP};
use crate::ops::cpu::vector::vectorized;

/// Some of 32 rows of `k` numbers in bfloat16, as [`super::Narrow`] lays out rows of `width`.
pub(super) fn narrow_tile(rows: &[f32], k: usize, width: usize, tile: &mut [bf16]) {
    let halves = tile.chunks_exact_mut(HALF * width);
    for (rows, half) in rows.chunks(HALF * k).zip(halves) {
        narrow_rows(rows, k, half);
    }
}

/// To the nearest, of two as near the even one. A NaN may become an infinity.
#[inline(always)]
pub(super) fn round(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    bf16::from_bits(rounded as u16)
}

vectorized! {
    /// Each number rounded.
    pub(in crate::ops) fn round_all(numbers: &[f32], out: &mut [bf16]) {
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = round(*number);
        }
    }

    /// Rounded to the nearest, of two as near to the even one.
    pub(super) fn narrow_rows(rows: &[f32], k: usize, out: &mut [bf16]) {
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

    /// Columns `panel` of rows of `width` numbers that were narrowed.
    pub(super) fn pack_tiles(narrow: &[bf16], width: usize, panel: usize, packed: &mut [bf16]) {
        let tiles = narrow.chunks_exact(HALF * width);
        for (half_of_step, rows) in tiles.enumerate() {
            let tile = &rows[panel * HALF * STEP..][..HALF * STEP];
            for (pair, both) in tile.as_chunks::<{ 2 * STEP }>().0.iter().enumerate() {
                let (even, odd) = both.split_at(STEP);
                let pair = half_of_step * HALF / 2 + pair;
                for half in 0..2 {
                    let columns = half * HALF..(half + 1) * HALF;
                    let out = packed[packed_place(pair, half)..][..STEP].as_chunks_mut::<2>().0;
                    let both = even[columns.clone()].iter().zip(&odd[columns]);
                    for (out, (even, odd)) in out.iter_mut().zip(both) {
                        *out = [*even, *odd];
                    }
                }
            }
        }
    }
}

/// Rows `panel` of a matrix with `k` columns, as the columns of its transpose.
pub(super) fn pack_rows(weight: &[bf16], k: usize, panel: usize, packed: &mut [bf16]) {
    let first = panel * PANEL;
    let n_rows = (weight.len() / k - first).min(PANEL);
    for half in 0..n_rows.div_ceil(HALF) {
        let rows = &weight[(first + half * HALF) * k..];
        let n_rows = (n_rows - half * HALF).min(HALF);
        for column in (0..k).step_by(STEP) {
            let tile = &mut packed[packed_place(column / 2, half)..][..HALF * STEP];
            if n_rows == HALF && column + STEP <= k {
                turn(&rows[column..], k, tile);
                continue;
            }
            for (row, values) in rows.chunks_exact(k).take(n_rows).enumerate() {
                let values = &values[column..(column + STEP).min(k)];
                for (pair, line) in values.chunks(2).zip(tile.chunks_exact_mut(STEP)) {
                    line[2 * row..][..pair.len()].copy_from_slice(pair);
                }
            }
        }
    }
}

/// Some columns of rows of `width` numbers, as rows.
pub(super) fn transpose(rows: &[f32], width: usize, columns: &Range<usize>) -> Vec<f32> {
    let column = |column| rows[column..].iter().step_by(width);
    columns.clone().flat_map(column).copied().collect()
}

/// Where a pair of summands of half a panel's columns begins: `[k / 32, 2, 16, 16, 2]`.
#[inline(always)]
pub(super) fn packed_place(pair: usize, half: usize) -> usize {
    let (step, pair) = (pair / HALF, pair % HALF);
    ((step * 2 + half) * HALF + pair) * STEP
}

#[cfg(test)]
mod tests {
    use super::super::TILE_ROWS;
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
        let mut found = vec![bf16::ZERO; TILE_ROWS * STEP];
        narrow_tile(&numbers, 6, STEP, &mut found);
        assert_eq!(found[..6], numbers.map(bf16::from_f32));
        assert!(found[6..].iter().all(|value| *value == bf16::ZERO));
    }
}

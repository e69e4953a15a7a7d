//! A factor in blocks: what a panel needs of it is decoded straight into the panel.

use std::ops::Range;

use half::bf16;

use super::factor::Factor;
use super::pack::{packed_place, round};
use super::{HALF, PANEL, STEP};
use crate::blocks::{Blocks, RUN};
use crate::ops::cpu::vector::vectorized;

/// Values of a row that are decoded at a time: what 32 rows of them are packed to stays in the first cache.
const PIECE: usize = 256;

// A step and a panel's columns begin where a run does.
const _: () = assert!(STEP.is_multiple_of(RUN) && PANEL == RUN && PIECE.is_multiple_of(STEP));

impl Factor for Blocks {
    fn dims(&self) -> [usize; 2] {
        self.dims()
    }

    fn pack_rows(&self, panel: usize, packed: &mut [bf16]) {
        let [n, k] = self.dims();
        let rows = panel * PANEL..((panel + 1) * PANEL).min(n);
        let mut piece = [0.0; PIECE];
        for first in (0..k).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(k - first)];
            for (column, row) in rows.clone().enumerate() {
                self.read(row, first, piece);
                let (half, place) = (column / HALF, 2 * (column % HALF));
                for (step, values) in piece.chunks(STEP).enumerate() {
                    let tile = packed_place(first / 2 + step * HALF, half) + place;
                    spread(values, &mut packed[tile..]);
                }
            }
        }
    }

    fn pack_columns(&self, panel: usize, packed: &mut [bf16]) {
        let [k, n] = self.dims();
        let first = panel * PANEL;
        let width = PANEL.min(n - first);
        let (mut even, mut odd) = ([0.0; PANEL], [0.0; PANEL]);
        for pair in 0..k.div_ceil(2) {
            self.read(2 * pair, first, &mut even[..width]);
            if 2 * pair + 1 < k {
                self.read(2 * pair + 1, first, &mut odd[..width]);
            } else {
                odd.fill(0.0);
            }
            let halves = even.chunks_exact(HALF).zip(odd.chunks_exact(HALF));
            for (half, (even, odd)) in halves.enumerate() {
                interleave(even, odd, &mut packed[packed_place(pair, half)..][..STEP]);
            }
        }
    }

    fn widen(&self, rows: Range<usize>, out: &mut [f32]) {
        self.read_rows(rows, out);
    }
}

vectorized! {
    /// Pairs of a step's summands, each to its line of the tile.
    fn spread(values: &[f32], tile: &mut [bf16]) {
        let mut narrow = [bf16::ZERO; STEP];
        for (narrow, value) in narrow.iter_mut().zip(values) {
            *narrow = round(*value);
        }
        for (pair, line) in narrow.as_chunks::<2>().0.iter().zip(tile.chunks_mut(STEP)) {
            line[..2].copy_from_slice(pair);
        }
    }

    /// Two rows' numbers, taken in turn.
    fn interleave(even: &[f32], odd: &[f32], out: &mut [bf16]) {
        for ((pair, even), odd) in out.as_chunks_mut::<2>().0.iter_mut().zip(even).zip(odd) {
            *pair = [round(*even), round(*odd)];
        }
    }
}

//! A factor in blocks: what a panel needs of it is decoded straight into the panel.

use std::ops::Range;

use half::bf16;

use super::factor::Factor;
use super::pack::{packed_place, round, round_all};
use super::turn::turn;
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
        let mut wide = [0.0; PIECE];
        let mut narrow = [bf16::ZERO; HALF * PIECE];
        for first in (0..k).step_by(PIECE) {
            let wide = &mut wide[..PIECE.min(k - first)];
            for half in 0..rows.len().div_ceil(HALF) {
                let rows = rows.clone().skip(half * HALF).take(HALF);
                narrow.fill(bf16::ZERO);
                for (row, narrow) in rows.zip(narrow.chunks_exact_mut(PIECE)) {
                    self.read(row, first, wide);
                    round_all(wide, narrow);
                }
                for step in (0..wide.len()).step_by(STEP) {
                    let place = packed_place(first / 2 + step / 2, half);
                    let tile = &mut packed[place..][..HALF * STEP];
                    turn(&narrow[step..], PIECE, tile);
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
    /// Two rows' numbers, taken in turn.
    fn interleave(even: &[f32], odd: &[f32], out: &mut [bf16]) {
        for ((pair, even), odd) in out.as_chunks_mut::<2>().0.iter_mut().zip(even).zip(odd) {
            *pair = [round(*even), round(*odd)];
        }
    }
}

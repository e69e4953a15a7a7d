//! Products with a matrix kept in bfloat16, accumulated in f32.
//!
//! The matrix is read as it lies in memory and packed a panel at a time, so there is one copy of it and not one for each
//! direction. Panels are packed as both AMX and AVX512_BF16 want them; other CPUs widen the matrix a piece at a time and
//! multiply in f32.
//!
//! Legend: m rows of the left factor, k the summed dimension, n columns of the result.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;

use half::bf16;
use rayon::prelude::*;

use super::matmul::{Into, Matrix, MatrixMut, matmul};
use super::vector::vectorized;

/// Columns of a panel.
const PANEL: usize = 32;
/// Panels that a task packs before it goes through the rows, which it then reads once for all of them.
const GROUP: usize = 3;
/// Rows of the result that a kernel makes at a time.
const TILE_ROWS: usize = 32;
/// Summands that a kernel takes at a time.
const STEP: usize = 32;
/// Rows, columns and pairs of summands of a hardware tile.
const HALF: usize = 16;

/// The instructions that multiply bfloat16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Intel's tile unit: Sapphire Rapids and later.
    Amx,
    /// Cooper Lake, Sapphire Rapids, Zen 4 and later.
    Avx512Bf16,
    /// None: f32 arithmetic.
    Widen,
}

impl Kernel {
    /// For the name that checkpoints carry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Widen => "widened",
        }
    }

    /// The fastest this CPU and this kernel of the operating system allow.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if amx::is_available() {
                return Self::Amx;
            }
            if avx512::is_available() {
                return Self::Avx512Bf16;
            }
        }
        Self::Widen
    }
}

/// `x·Wᵀ`.
///
/// # Shapes
/// `x`: `[m, k]`, `weight`: `[n, k]`; returns `[m, n]`.
pub(super) fn times_transposed(x: &[f32], k: usize, weight: &[bf16], kernel: Kernel) -> Vec<f32> {
    let n = weight.len() / k;
    if kernel == Kernel::Widen {
        return widened_transposed(x, k, weight);
    }
    product(x, k, n, kernel, |panel, packed| {
        pack_rows(weight, k, panel, packed);
    })
}

/// `y·W`.
///
/// # Shapes
/// `y`: `[m, k]`, `weight`: `[k, n]`; returns `[m, n]`.
pub(super) fn times(y: &[f32], k: usize, weight: &[bf16], kernel: Kernel) -> Vec<f32> {
    let n = weight.len() / k;
    if kernel == Kernel::Widen {
        return widened(y, k, weight);
    }
    product(y, k, n, kernel, |panel, packed| {
        pack_columns(weight, n, panel, packed);
    })
}

/// `pack` fills a panel, which comes filled with zeros where it does not reach, at [`packed_place`]s.
fn product(
    a: &[f32],
    k: usize,
    n: usize,
    kernel: Kernel,
    pack: impl Fn(usize, &mut [bf16]) + Sync,
) -> Vec<f32> {
    let m = a.len() / k;
    let k_padded = k.next_multiple_of(STEP);
    let narrow = narrow(a, k, k_padded, m.next_multiple_of(TILE_ROWS));
    let mut out = Vec::with_capacity(m * n);
    let result = Columns {
        first: out.as_mut_ptr(),
        m,
        n,
    };
    (0..n.div_ceil(PANEL * GROUP))
        .into_par_iter()
        .for_each_init(
            || vec![bf16::ZERO; k_padded * PANEL * GROUP],
            |packed, group| {
                let panels = group * GROUP..((group + 1) * GROUP).min(n.div_ceil(PANEL));
                let packed = packed.chunks_exact_mut(k_padded * PANEL);
                let packed: Vec<_> = panels
                    .zip(packed)
                    .map(|(panel, packed)| {
                        if k < k_padded || (panel + 1) * PANEL > n {
                            packed.fill(bf16::ZERO);
                        }
                        pack(panel, packed);
                        (panel, &*packed)
                    })
                    .collect();
                for (row, a) in narrow.chunks_exact(TILE_ROWS * k_padded).enumerate() {
                    for (panel, packed) in &packed {
                        result.tile(kernel, a, packed, k_padded, [row, *panel]);
                    }
                }
            },
        );
    #[expect(unsafe_code, reason = "the tiles cover the result")]
    // SAFETY: there is room for m·n numbers, and every one of them lies in one tile, which wrote it.
    unsafe {
        out.set_len(m * n);
    }
    out
}

/// A result whose columns several tasks write, each its own.
#[derive(Clone, Copy)]
struct Columns {
    first: *mut f32,
    m: usize,
    n: usize,
}

#[expect(unsafe_code, reason = "tasks write disjoint columns of one buffer")]
// SAFETY: `product` hands each panel, and with it each column, to one task.
unsafe impl Sync for Columns {}

impl Columns {
    /// Multiplies `[TILE_ROWS, k]` with a panel and writes what of it lies within the result.
    fn tile(self, kernel: Kernel, a: &[bf16], panel: &[bf16], k: usize, [row, column]: [usize; 2]) {
        let (row, column) = (row * TILE_ROWS, column * PANEL);
        let (height, width) = (TILE_ROWS.min(self.m - row), PANEL.min(self.n - column));
        #[expect(unsafe_code, reason = "a slice would overlap other tasks' columns")]
        // SAFETY: row and column are in the result, of which height and width stay within; no other task has these
        // columns. A tile that is not whole goes through a buffer of its own.
        unsafe {
            let target = self.first.add(row * self.n + column);
            if height == TILE_ROWS && width == PANEL {
                multiply(kernel, a, panel, k, target, self.n);
                return;
            }
            let mut tile = [0.0; TILE_ROWS * PANEL];
            multiply(kernel, a, panel, k, tile.as_mut_ptr(), PANEL);
            for (row, values) in tile.chunks_exact(PANEL).take(height).enumerate() {
                let target = target.add(row * self.n);
                std::ptr::copy_nonoverlapping(values.as_ptr(), target, width);
            }
        }
    }
}

/// Writes the product of `[TILE_ROWS, k]` and a panel to `out`, rows `stride` apart.
///
/// # Safety
/// `out` may be written at [`PANEL`] numbers of [`TILE_ROWS`] rows.
#[expect(unsafe_code, reason = "the result is strided and shared")]
unsafe fn multiply(
    kernel: Kernel,
    a: &[bf16],
    panel: &[bf16],
    k: usize,
    out: *mut f32,
    stride: usize,
) {
    assert!(a.len() == TILE_ROWS * k && panel.len() == PANEL * k && k.is_multiple_of(STEP));
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for `out`; the lengths were checked.
    unsafe {
        match kernel {
            Kernel::Amx => amx::multiply(a, panel, k, out, stride),
            Kernel::Avx512Bf16 => avx512::multiply(a, panel, k, out, stride),
            Kernel::Widen => unreachable!("widened products have no tiles"),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{kernel:?} has no tiles, not even at {out:?} and {stride}");
}

/// `a` in bfloat16, rounded to nearest even, with zeros up to `k_padded` columns and `m_padded` rows.
///
/// # Shapes
/// `[m_padded / 16, k_padded / 32, 16, 32]`: a kernel reads a tile of 16 rows and 32 summands in one go.
fn narrow(a: &[f32], k: usize, k_padded: usize, m_padded: usize) -> Vec<bf16> {
    let mut out = vec![bf16::ZERO; m_padded * k_padded];
    out.par_chunks_mut(HALF * k_padded)
        .zip(a.par_chunks(HALF * k))
        .for_each(|(out, rows)| narrow_rows(rows, k, out));
    out
}

vectorized! {
    fn narrow_rows(rows: &[f32], k: usize, out: &mut [bf16]) {
        for (index, row) in rows.chunks_exact(k).enumerate() {
            for (from, tile) in row.chunks(STEP).zip(out.chunks_exact_mut(HALF * STEP)) {
                for (out, value) in tile[index * STEP..].iter_mut().zip(from) {
                    let bits = value.to_bits();
                    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
                    *out = bf16::from_bits(rounded as u16);
                }
            }
        }
    }

    fn widen(row: &[bf16], out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(row) {
            *out = f32::from_bits(u32::from(value.to_bits()) << 16);
        }
    }

    /// Columns `panel` of a matrix with `n` columns: two neighbouring rows, interleaved.
    fn pack_columns(weight: &[bf16], n: usize, panel: usize, packed: &mut [bf16]) {
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
    fn pack_rows(weight: &[bf16], k: usize, panel: usize, packed: &mut [bf16]) {
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
fn packed_place(pair: usize, half: usize) -> usize {
    let (step, pair) = (pair / HALF, pair % HALF);
    ((step * 2 + half) * HALF + pair) * STEP
}

/// Rows of W that are widened at a time.
const WIDENED_ROWS: usize = 128;

fn widened_transposed(x: &[f32], k: usize, weight: &[bf16]) -> Vec<f32> {
    let (m, n) = (x.len() / k, weight.len() / k);
    let mut out = vec![0.0; m * n];
    let mut wide = vec![0.0; WIDENED_ROWS * k];
    for (piece, rows) in weight.chunks(WIDENED_ROWS * k).enumerate() {
        let wide = &mut wide[..rows.len()];
        widen(rows, wide);
        let first = piece * WIDENED_ROWS;
        matmul(
            MatrixMut::strided(&mut out[first..], [m, rows.len() / k], n),
            Matrix::new(x, k),
            Matrix::new(wide, k).transposed(),
            Into::Overwrite,
        );
    }
    out
}

fn widened(y: &[f32], k: usize, weight: &[bf16]) -> Vec<f32> {
    let (m, n) = (y.len() / k, weight.len() / k);
    let mut out = vec![0.0; m * n];
    let mut wide = vec![0.0; WIDENED_ROWS * n];
    for (piece, rows) in weight.chunks(WIDENED_ROWS * n).enumerate() {
        let wide = &mut wide[..rows.len()];
        widen(rows, wide);
        let first = piece * WIDENED_ROWS;
        matmul(
            MatrixMut::new(&mut out, n),
            Matrix::strided(&y[first..], [m, rows.len() / n], k),
            Matrix::new(wide, n),
            Into::Add,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random_values;

    fn random(name: &str, n: usize) -> Vec<bf16> {
        random_values(name, n)
            .into_iter()
            .map(bf16::from_f32)
            .collect()
    }

    fn kernels() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Widen];
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::is_available() {
                kernels.push(Kernel::Avx512Bf16);
            }
            if amx::is_available() {
                kernels.push(Kernel::Amx);
            }
        }
        kernels
    }

    #[test]
    fn every_kernel_multiplies() {
        for [m, k, n] in [
            [1, 2, 1],
            [3, 33, 5],
            [40, 64, 96],
            [65, 100, 33],
            [32, 32, 32],
        ] {
            let x = random("x", m * k);
            let wide: Vec<f32> = x.iter().map(|value| value.to_f32()).collect();
            let weight = random("weight", n * k);
            let at = |row: usize, column: usize| f64::from(weight[row * k + column].to_f32());
            for kernel in kernels() {
                let found = times_transposed(&wide, k, &weight, kernel);
                let expected = |row: usize, column: usize| -> f64 {
                    (0..k)
                        .map(|i| f64::from(wide[row * k + i]) * at(column, i))
                        .sum()
                };
                check(&found, n, expected, kernel);
            }
            // The other way: `[m, k]` times `[k, n]`.
            let at = |row: usize, column: usize| f64::from(weight[row * n + column].to_f32());
            for kernel in kernels() {
                let found = times(&wide, k, &weight, kernel);
                let expected = |row: usize, column: usize| -> f64 {
                    (0..k)
                        .map(|i| f64::from(wide[row * k + i]) * at(i, column))
                        .sum()
                };
                check(&found, n, expected, kernel);
            }
        }
    }

    fn check(found: &[f32], n: usize, expected: impl Fn(usize, usize) -> f64, kernel: Kernel) {
        for (index, found) in found.iter().enumerate() {
            let expected = expected(index / n, index % n);
            assert!(
                (f64::from(*found) - expected).abs() < 1e-4,
                "{kernel:?}: {found} instead of {expected} at {index}"
            );
        }
    }

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
        let found = narrow(&numbers, 6, STEP, HALF);
        assert_eq!(found[..6], numbers.map(bf16::from_f32));
        assert!(found[6..].iter().all(|value| *value == bf16::ZERO));
    }
}

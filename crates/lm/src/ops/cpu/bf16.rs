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
/// Rows of the result that a kernel makes at a time.
const TILE_ROWS: usize = 32;
/// Summands that a kernel takes at a time.
const STEP: usize = 32;

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

/// `pack` fills a panel: for each pair of summands, [`PANEL`] columns of two numbers. It comes filled with zeros.
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
    let mut out = vec![0.0; m * n];
    let columns = Columns(out.as_mut_ptr());
    (0..n.div_ceil(PANEL)).into_par_iter().for_each_init(
        || vec![bf16::ZERO; k_padded * PANEL],
        |packed, panel| {
            if k < k_padded || (panel + 1) * PANEL > n {
                packed.fill(bf16::ZERO);
            }
            pack(panel, packed);
            let first = panel * PANEL;
            let width = PANEL.min(n - first);
            for row in (0..m).step_by(TILE_ROWS) {
                let height = TILE_ROWS.min(m - row);
                let mut tile = [0.0; TILE_ROWS * PANEL];
                let a = &narrow[row * k_padded..][..TILE_ROWS * k_padded];
                multiply(kernel, a, packed, k_padded, &mut tile);
                columns.write(&tile, row * n + first, height, width, n);
            }
        },
    );
    out
}

/// The start of a result whose columns several tasks write, each its own.
#[derive(Clone, Copy)]
struct Columns(*mut f32);

#[expect(unsafe_code, reason = "tasks write disjoint columns of one buffer")]
// SAFETY: `product` hands each panel, and with it each column, to one task.
unsafe impl Sync for Columns {}

impl Columns {
    /// Writes the tile's first `height` rows and `width` columns from index `start` on, rows `n` apart.
    fn write(self, tile: &[f32], start: usize, height: usize, width: usize, n: usize) {
        for (row, values) in tile.chunks_exact(PANEL).take(height).enumerate() {
            #[expect(unsafe_code, reason = "a slice would overlap other tasks' columns")]
            // SAFETY: `product` cuts height and width at the buffer's edges, and no other task has these columns.
            unsafe {
                let target = self.0.add(start + row * n);
                std::ptr::copy_nonoverlapping(values.as_ptr(), target, width);
            }
        }
    }
}

/// A tile of the result: `[TILE_ROWS, k]` times a panel.
fn multiply(kernel: Kernel, a: &[bf16], panel: &[bf16], k: usize, tile: &mut [f32]) {
    assert!(a.len() == TILE_ROWS * k && panel.len() == PANEL * k && k.is_multiple_of(STEP));
    assert_eq!(tile.len(), TILE_ROWS * PANEL);
    #[cfg(target_arch = "x86_64")]
    match kernel {
        Kernel::Amx => amx::multiply(a, panel, k, tile),
        Kernel::Avx512Bf16 => avx512::multiply(a, panel, k, tile),
        Kernel::Widen => unreachable!("widened products have no tiles"),
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{kernel:?} has no tiles");
}

/// `a` in bfloat16, rounded to nearest even, with zeros up to `k_padded` columns and `m_padded` rows.
fn narrow(a: &[f32], k: usize, k_padded: usize, m_padded: usize) -> Vec<bf16> {
    let mut out = vec![bf16::ZERO; m_padded * k_padded];
    out.par_chunks_mut(k_padded)
        .zip(a.par_chunks(k))
        .with_min_len(16)
        .for_each(|(out, row)| narrow_row(row, &mut out[..k]));
    out
}

vectorized! {
    fn narrow_row(row: &[f32], out: &mut [bf16]) {
        for (out, value) in out.iter_mut().zip(row) {
            let bits = value.to_bits();
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
            *out = bf16::from_bits(rounded as u16);
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
        let pairs = weight.chunks(2 * n).zip(packed.chunks_exact_mut(2 * PANEL));
        for (rows, packed) in pairs {
            let even = &rows[first..][..width];
            if rows.len() == 2 * n {
                let odd = &rows[n + first..][..width];
                for ((pair, even), odd) in packed.chunks_exact_mut(2).zip(even).zip(odd) {
                    pair[0] = *even;
                    pair[1] = *odd;
                }
            } else {
                for (pair, even) in packed.chunks_exact_mut(2).zip(even) {
                    pair[0] = *even;
                }
            }
        }
    }

    /// Rows `panel` of a matrix with `k` columns, as the columns of its transpose.
    fn pack_rows(weight: &[bf16], k: usize, panel: usize, packed: &mut [bf16]) {
        const BLOCK: usize = 32;
        let rows = &weight[panel * PANEL * k..];
        let n_rows = (rows.len() / k).min(PANEL);
        // By blocks of columns, so that what is written stays in the cache until the last row has passed.
        for first in (0..k).step_by(BLOCK) {
            let last = (first + BLOCK).min(k);
            for column in 0..n_rows {
                let row = &rows[column * k..][..k];
                let pairs = packed[first * PANEL..].chunks_exact_mut(2 * PANEL);
                for (pair, packed) in row[first..last].chunks(2).zip(pairs) {
                    let place = &mut packed[2 * column..2 * column + 2];
                    place[0] = pair[0];
                    if let Some(odd) = pair.get(1) {
                        place[1] = *odd;
                    }
                }
            }
        }
    }
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
        let mut found = [bf16::ZERO; 6];
        narrow_row(&numbers, &mut found);
        assert_eq!(found, numbers.map(bf16::from_f32));
    }
}

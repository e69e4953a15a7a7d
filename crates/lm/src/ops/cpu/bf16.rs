//! Products with a matrix kept in bfloat16 or in blocks of fewer bits, accumulated in f32.
//!
//! The matrix is read as it lies in memory and packed a panel at a time, so there is one copy of it and not one for each
//! direction, and blocks are never decoded all at once. A single row, as in generation, is bound by reading the matrix:
//! its products are made in f32. Panels are packed as both AMX and AVX512_BF16 want them; other CPUs widen the matrix a piece at a time and
//! multiply in f32.
//!
//! Legend: m rows of the left factor, k the summed dimension, n columns of the result.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod beside;
mod blocks;
mod factor;
mod pack;
mod row;
mod turn;
mod widen;

use std::mem::MaybeUninit;

use half::bf16;
use rayon::prelude::*;

pub(in crate::ops) use beside::{Beside, NarrowRows};
pub(super) use factor::{Dense, Factor};
use pack::narrow_tile;
pub(in crate::ops) use pack::round_all;

/// Tiles of a panel.
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
    /// For the name that checkpoints carry, with the version of what is computed where there was another before.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx-2",
            Self::Avx512Bf16 => "avx512bf16-2",
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
pub(super) fn times_transposed(x: &[f32], weight: &impl Factor, kernel: Kernel) -> Vec<f32> {
    let [n, k] = weight.dims();
    if x.len() == k {
        return row::times_transposed(x, weight);
    }
    if kernel == Kernel::Widen {
        return widen::times_transposed(x, weight);
    }
    let x = Narrow::new(x, k);
    x.times(n, kernel, |panel, packed| weight.pack_rows(panel, packed))
}

/// `y·W`.
///
/// # Shapes
/// `y`: `[m, k]`, `weight`: `[k, n]`; returns `[m, n]`.
pub(super) fn times(y: &[f32], weight: &impl Factor, kernel: Kernel) -> Vec<f32> {
    let [k, n] = weight.dims();
    if kernel == Kernel::Widen {
        return widen::times(y, weight);
    }
    let y = Narrow::new(y, k);
    y.times(n, kernel, |panel, packed| {
        weight.pack_columns(panel, packed);
    })
}

/// The left factor, as the kernels read it.
struct Narrow {
    /// `[m / 16, k / 32, 16, 32]`, m and k rounded up to multiples of 32: a kernel reads a tile of 16 rows and 32 summands
    /// in one go.
    values: Vec<bf16>,
    m: usize,
    /// Summands, up to whole steps.
    k: usize,
}

impl Narrow {
    fn new(a: &[f32], k: usize) -> Self {
        let m = a.len() / k;
        let width = k.next_multiple_of(STEP);
        let rows = a.chunks(TILE_ROWS * k).collect();
        Self::made(m, width, rows, |tile, rows| {
            narrow_tile(rows, k, width, tile);
        })
    }

    /// `make` fills each 32 rows, which come filled with zeros, with what belongs to them.
    fn made<T: Send>(
        m: usize,
        k: usize,
        rows: Vec<T>,
        make: impl Fn(&mut [bf16], T) + Sync,
    ) -> Self {
        let n = m.next_multiple_of(TILE_ROWS) * k;
        assert_eq!(rows.len() * TILE_ROWS * k, n, "every tile is made");
        let mut values = Vec::with_capacity(n);
        values.spare_capacity_mut()[..n]
            .par_chunks_mut(TILE_ROWS * k)
            .zip(rows)
            .for_each(|(tile, rows)| {
                // Here, where they stay in the cache until they are overwritten.
                tile.fill(MaybeUninit::new(bf16::ZERO));
                #[expect(unsafe_code, reason = "every number was just written")]
                // SAFETY: as the line above shows.
                let tile = unsafe { tile.assume_init_mut() };
                make(tile, rows);
            });
        #[expect(unsafe_code, reason = "the tasks initialised every number")]
        // SAFETY: there are as many tiles as the first n numbers make up, and each task began by writing all of its own.
        unsafe {
            values.set_len(n);
        }
        Self { values, m, k }
    }

    /// The factor times `n` columns. `pack` fills a panel of them, which comes filled with zeros, as `pack` lays it out.
    fn times(
        &self,
        n: usize,
        kernel: Kernel,
        pack: impl Fn(usize, &mut [bf16]) + Sync,
    ) -> Vec<f32> {
        let (m, k) = (self.m, self.k);
        let mut out = Vec::with_capacity(m * n);
        let result = Tiles {
            first: out.as_mut_ptr(),
            m,
            n,
        };
        let n_panels = n.div_ceil(PANEL);
        let tasks = (0..n_panels.div_ceil(GROUP)).into_par_iter();
        let room = || vec![bf16::ZERO; k * PANEL * GROUP];
        tasks.for_each_init(room, |room, group| {
            let panels = group * GROUP..((group + 1) * GROUP).min(n_panels);
            let packed: Vec<_> = panels
                .zip(room.chunks_exact_mut(k * PANEL))
                .map(|(panel, packed)| {
                    packed.fill(bf16::ZERO);
                    pack(panel, packed);
                    (panel, &*packed)
                })
                .collect();
            for (row, a) in self.values.chunks_exact(TILE_ROWS * k).enumerate() {
                for (panel, packed) in &packed {
                    result.tile(kernel, a, packed, k, [row, *panel]);
                }
            }
        });
        #[expect(unsafe_code, reason = "the tiles cover the result")]
        // SAFETY: there is room for m·n numbers, and every one of them lies in one tile, which wrote it.
        unsafe {
            out.set_len(m * n);
        }
        out
    }
}

/// A result whose tiles several tasks write, each its own.
#[derive(Clone, Copy)]
struct Tiles {
    first: *mut f32,
    m: usize,
    n: usize,
}

#[expect(unsafe_code, reason = "tasks write disjoint tiles of one buffer")]
// SAFETY: `Narrow::times` hands each tile to one task.
unsafe impl Sync for Tiles {}

impl Tiles {
    /// Multiplies `[TILE_ROWS, k]` with a panel and writes what of it lies within the result.
    fn tile(self, kernel: Kernel, a: &[bf16], panel: &[bf16], k: usize, [row, column]: [usize; 2]) {
        let (row, column) = (row * TILE_ROWS, column * PANEL);
        let (height, width) = (TILE_ROWS.min(self.m - row), PANEL.min(self.n - column));
        #[expect(unsafe_code, reason = "a slice would overlap other tasks' tiles")]
        // SAFETY: row and column are in the result, of which height and width stay within; no other task has this
        // tile. A tile that is not whole goes through a buffer of its own.
        unsafe {
            let target = self.first.add(row * self.n + column);
            if height == TILE_ROWS && width == PANEL {
                multiply(kernel, a, panel, k, target, self.n, [height, width]);
                return;
            }
            let mut tile = [0.0; TILE_ROWS * PANEL];
            multiply(
                kernel,
                a,
                panel,
                k,
                tile.as_mut_ptr(),
                PANEL,
                [height, width],
            );
            for (row, values) in tile.chunks_exact(PANEL).take(height).enumerate() {
                let target = target.add(row * self.n);
                std::ptr::copy_nonoverlapping(values.as_ptr(), target, width);
            }
        }
    }
}

/// Writes the product of `[TILE_ROWS, k]` and a panel to `out`, rows `stride` apart: at least its first `height` rows and
/// `width` columns.
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
    [height, width]: [usize; 2],
) {
    assert!(height <= TILE_ROWS && width <= PANEL);
    assert!(a.len() == TILE_ROWS * k && panel.len() == PANEL * k && k.is_multiple_of(STEP));
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for `out`; the lengths were checked.
    unsafe {
        match kernel {
            Kernel::Amx => amx::multiply(a, panel, k, out, stride),
            Kernel::Avx512Bf16 => avx512::multiply(a, panel, k, out, stride, [height, width]),
            Kernel::Widen => unreachable!("widened products have no tiles"),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{kernel:?} has no tiles, not even at {out:?} and {stride}, {height} × {width}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::testing::every_kind;
    use crate::ops::testing::random_values;

    pub(super) fn random(name: &str, n: usize) -> Vec<bf16> {
        random_values(name, n)
            .into_iter()
            .map(bf16::from_f32)
            .collect()
    }

    #[test]
    fn every_kernel_multiplies_blocks_as_the_numbers_they_stand_for() {
        for [m, n, k] in [[1, 40, 256], [70, 33, 512], [3, 7, 70], [40, 130, 96]] {
            for blocks in every_kind(n, k) {
                let dense: Vec<_> = blocks.dense().into_iter().map(bf16::from_f32).collect();
                let narrow = |name: &str, n| -> Vec<f32> {
                    random(name, n).iter().map(|value| value.to_f32()).collect()
                };
                let (x, y) = (narrow("x", m * k), narrow("y", m * n));
                let dense = Dense::new(&dense, k);
                for kernel in kernels() {
                    let both = [
                        times_transposed(&x, &blocks, kernel),
                        times(&y, &blocks, kernel),
                    ];
                    let expected = [
                        times_transposed(&x, &dense, kernel),
                        times(&y, &dense, kernel),
                    ];
                    // Panels are equal to the bit; what is widened is not rounded to 16 bits, nor is a single row.
                    let exact = kernel != Kernel::Widen && m > 1;
                    let bound = if exact { 0.0 } else { 2e-2 };
                    for n_threads in [1, 3] {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
                        let again = pool.build().unwrap().install(|| {
                            [
                                times_transposed(&x, &blocks, kernel),
                                times(&y, &blocks, kernel),
                            ]
                        });
                        assert_eq!(again, both, "with {n_threads} threads");
                    }
                    for (found, expected) in both.iter().zip(&expected) {
                        close(bound, found, expected, &format!("{blocks:?} by {kernel:?}"));
                    }
                }
            }
        }
    }

    fn close(bound: f32, found: &[f32], expected: &[f32], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(0.0_f32, |s, value| s.max(value.abs()));
        for (found, expected) in found.iter().zip(expected) {
            let error = (found - expected).abs();
            assert!(
                error <= bound * scale,
                "{what}: {found} instead of {expected}"
            );
        }
    }

    pub(super) fn kernels() -> Vec<Kernel> {
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
                let found = times_transposed(&wide, &Dense::new(&weight, k), kernel);
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
                let found = times(&wide, &Dense::new(&weight, n), kernel);
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
}

//! A product with a matrix that two thin factors stand beside: `x·W + s·(x·D)·U` in one pass.
//!
//! `s·x·D` is made as the rows of x are narrowed, and lies behind them as further summands, as U lies behind W's in every
//! panel. So x is read once and the result written once, where an adapter's own products would read and write both again.
//!
//! Legend: as in the parent; r ranks of all parts of the adapter together.

use std::ops::Range;

use half::bf16;

use super::factor::{Dense, Factor};
use super::pack::{narrow_rows, narrow_tile, pack_tiles, transpose};
use super::{HALF, Kernel, Narrow, PANEL, STEP, TILE_ROWS, multiply};

/// An adapter's factors in bfloat16.
pub(in crate::ops) struct Beside {
    /// `[d, r]`
    pub(in crate::ops) a: Vec<bf16>,
    /// `[r, o]`: each part's factor at its ranks and columns, zeros elsewhere.
    pub(in crate::ops) b: Vec<bf16>,
    pub(in crate::ops) r: usize,
    pub(in crate::ops) scale: f32,
}

/// Rows that were narrowed for one product, for another that sums over them.
pub(in crate::ops) struct NarrowRows(Narrow);

impl Beside {
    /// `x·Wᵀ + u·B` and `u = s·x·A`.
    ///
    /// # Shapes
    /// `x`: `[m, d]`, `weight`: `[o, d]`; returns `[m, o]` and `[m, r]`.
    pub(in crate::ops::cpu) fn forward(
        &self,
        x: &[f32],
        weight: &impl Factor,
        kernel: Kernel,
    ) -> (Vec<f32>, Vec<f32>) {
        let [o, d] = weight.dims();
        let (a, b) = (Dense::new(&self.a, self.r), Dense::new(&self.b, o));
        let (x, u) = self.narrow(x, d, kernel, |panel, packed| a.pack_columns(panel, packed));
        let behind = d.next_multiple_of(STEP) * PANEL;
        let y = x.times(o, kernel, |panel, packed| {
            let (base, beside) = packed.split_at_mut(behind);
            weight.pack_rows(panel, base);
            b.pack_columns(panel, beside);
        });
        (y, u)
    }

    /// `v = s·dy·Bᵀ`, `dy·W + v·Aᵀ` if it is wanted, and dy's rows.
    ///
    /// # Shapes
    /// `dy`: `[m, o]`, `weight`: `[o, d]`; returns `[m, r]` and `[m, d]`.
    pub(in crate::ops::cpu) fn backward(
        &self,
        dy: &[f32],
        weight: &impl Factor,
        kernel: Kernel,
        wants_source: bool,
    ) -> (Vec<f32>, Vec<f32>, NarrowRows) {
        let [o, d] = weight.dims();
        let (a, b) = (Dense::new(&self.a, self.r), Dense::new(&self.b, o));
        let (dy, v) = self.narrow(dy, o, kernel, |panel, packed| b.pack_rows(panel, packed));
        let behind = o.next_multiple_of(STEP) * PANEL;
        let mut d_x = Vec::new();
        if wants_source {
            d_x = dy.times(d, kernel, |panel, packed| {
                let (base, beside) = packed.split_at_mut(behind);
                weight.pack_columns(panel, base);
                a.pack_rows(panel, beside);
            });
        }
        (v, d_x, NarrowRows(dy))
    }

    /// The left factor with `u = s·x·D` behind its rows, and u. `pack` fills a panel of D.
    fn narrow(
        &self,
        x: &[f32],
        k: usize,
        kernel: Kernel,
        pack: impl Fn(usize, &mut [bf16]),
    ) -> (Narrow, Vec<f32>) {
        let (r, scale) = (self.r, self.scale);
        let behind = k.next_multiple_of(STEP);
        let width = behind + r.next_multiple_of(STEP);
        // What lies behind the rows meets zeros here.
        let mut packed = vec![bf16::ZERO; r.div_ceil(PANEL) * width * PANEL];
        for (panel, packed) in packed.chunks_exact_mut(width * PANEL).enumerate() {
            pack(panel, &mut packed[..behind * PANEL]);
        }
        let mut u = vec![0.0; x.len() / k * r];
        let rows = x.chunks(TILE_ROWS * k).zip(u.chunks_mut(TILE_ROWS * r));
        let narrow = Narrow::made(x.len() / k, width, rows.collect(), |tile, (x, u)| {
            narrow_tile(x, k, width, tile);
            for (panel, packed) in packed.chunks_exact(width * PANEL).enumerate() {
                let first = panel * PANEL;
                let size = [u.len() / r, PANEL.min(r - first)];
                let mut product = [0.0; TILE_ROWS * PANEL];
                #[expect(unsafe_code, reason = "the kernels write through pointers")]
                // SAFETY: the product has room for a whole tile.
                unsafe {
                    multiply(
                        kernel,
                        tile,
                        packed,
                        width,
                        product.as_mut_ptr(),
                        PANEL,
                        size,
                    );
                }
                for (u, product) in u.chunks_exact_mut(r).zip(product.chunks_exact(PANEL)) {
                    for (u, product) in u[first..].iter_mut().zip(product) {
                        *u = product * scale;
                    }
                }
            }
            for (u, half) in u.chunks(HALF * r).zip(tile.chunks_exact_mut(HALF * width)) {
                narrow_rows(u, r, &mut half[behind * HALF..]);
            }
        });
        (narrow, u)
    }
}

impl NarrowRows {
    /// # Shapes
    /// `rows`: `[m, k]`
    pub(in crate::ops) fn new(rows: &[f32], k: usize) -> Self {
        Self(Narrow::new(rows, k))
    }

    /// `leftᵀ` times some columns of the rows.
    ///
    /// # Shapes
    /// `left`: `[m, r]`; returns `[ranks, columns]`.
    pub(in crate::ops) fn gradient(
        &self,
        left: &[f32],
        r: usize,
        ranks: &Range<usize>,
        columns: &Range<usize>,
        kernel: Kernel,
    ) -> Vec<f32> {
        let left = Narrow::new(&transpose(left, r, ranks), left.len() / r);
        let first = columns.start / PANEL;
        let width = columns.end - first * PANEL;
        let product = left.times(width, kernel, |panel, packed| {
            pack_tiles(&self.0.values, self.0.k, first + panel, packed);
        });
        if columns.start == first * PANEL {
            return product;
        }
        let skipped = columns.start - first * PANEL;
        let rows = product.chunks_exact(width);
        rows.flat_map(|row| &row[skipped..]).copied().collect()
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::tests::{kernels, random};
    use super::*;

    /// As the products read what they made themselves.
    fn rounded(number: f32) -> f32 {
        bf16::from_f32(number).to_f32()
    }

    fn wide(numbers: &[bf16]) -> Vec<f32> {
        numbers.iter().map(|number| number.to_f32()).collect()
    }

    /// `Σ left·right` over `k` places.
    fn sum(k: usize, term: impl Fn(usize) -> [f32; 2]) -> f32 {
        let terms = (0..k).map(term);
        terms.map(|[left, right]| left * right).sum()
    }

    fn check(what: &str, found: &[f32], width: usize, expected: impl Fn(usize, usize) -> f32) {
        assert!(
            !found.is_empty() && found.len().is_multiple_of(width),
            "{what}"
        );
        for (index, found) in found.iter().enumerate() {
            let expected = expected(index / width, index % width);
            let bound = 1e-4 * expected.abs().max(1.0);
            assert!(
                (found - expected).abs() < bound,
                "{what}: {found}, not {expected} at {index}"
            );
        }
    }

    #[test]
    fn an_adapter_beside_a_matrix_adds_what_its_own_products_would() {
        for [m, d, o, r] in [
            [2, 8, 12, 4],
            [70, 48, 100, 40],
            [33, 64, 32, 16],
            [65, 70, 33, 3],
        ] {
            let (weight, a, b) = (
                random("weight", o * d),
                random("a", d * r),
                random("b", r * o),
            );
            let (x, dy) = (wide(&random("x", m * d)), wide(&random("dy", m * o)));
            let (w, wide_a, wide_b) = (wide(&weight), wide(&a), wide(&b));
            let scale = 0.5;
            let beside = Beside { a, b, r, scale };
            let weight = Dense::new(&weight, d);
            for kernel in kernels()
                .into_iter()
                .filter(|kernel| *kernel != Kernel::Widen)
            {
                let (y, u) = beside.forward(&x, &weight, kernel);
                let at_u =
                    |i: usize, j: usize| scale * sum(d, |k| [x[i * d + k], wide_a[k * r + j]]);
                check("u", &u, r, at_u);
                check("y", &y, o, |i, j| {
                    sum(d, |k| [x[i * d + k], w[j * d + k]])
                        + sum(r, |k| [rounded(u[i * r + k]), wide_b[k * o + j]])
                });
                let (v, d_x, rows) = beside.backward(&dy, &weight, kernel, true);
                let at_v =
                    |i: usize, j: usize| scale * sum(o, |k| [dy[i * o + k], wide_b[j * o + k]]);
                check("v", &v, r, at_v);
                check("dx", &d_x, d, |i, j| {
                    sum(o, |k| [dy[i * o + k], w[k * d + j]])
                        + sum(r, |k| [rounded(v[i * r + k]), wide_a[j * r + k]])
                });
                for (ranks, columns) in [(0..r, 0..o), (1..r, o / 3..o - 1)] {
                    let d_b = rows.gradient(&u, r, &ranks, &columns, kernel);
                    assert_eq!(d_b.len(), ranks.len() * columns.len());
                    check("dB", &d_b, columns.len(), |i, j| {
                        sum(m, |k| {
                            [
                                rounded(u[k * r + ranks.start + i]),
                                dy[k * o + columns.start + j],
                            ]
                        })
                    });
                }
            }
        }
    }
}

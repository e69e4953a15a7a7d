//! The dot products of pairs that AVX512_BF16 brought.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps,
};

use half::bf16;

use super::{HALF, PANEL, STEP};

/// Rows whose sums are in registers at a time: two for each row, of 32.
const ROWS: usize = 8;

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512f")
}

/// As [`super::multiply`], which has checked the lengths.
///
/// # Safety
/// As there.
pub(super) unsafe fn multiply(
    a: &[bf16],
    panel: &[bf16],
    k: usize,
    out: *mut f32,
    stride: usize,
    [height, width]: [usize; 2],
) {
    for first in (0..height).step_by(ROWS) {
        let rows = first / HALF * HALF * k + first % HALF * STEP;
        // SAFETY: this kernel is only chosen where its instructions were detected; eight rows of a half of `a`, of which
        // the caller checked that it has all its steps, begin at `rows`; it vouches for those of the result.
        unsafe {
            let (a, panel) = (a.as_ptr().add(rows), panel.as_ptr());
            let out = out.add(first * stride);
            if width > HALF {
                multiply_rows::<2>(a, panel, k / STEP, out, stride);
            } else {
                multiply_rows::<1>(a, panel, k / STEP, out, stride);
            }
        }
    }
}

/// Eight rows times as many `HALVES` of the panel's columns.
///
/// Nothing is checked in here: a comparison for every broadcast took a fifth of the time.
///
/// # Safety
/// The CPU has AVX512F and AVX512_BF16. For each of `steps`, `a` begins a row of a tile that [`ROWS`] rows of follow, and
/// `panel` has a tile of all its columns. `out` may be written at [`PANEL`] numbers of [`ROWS`] rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_rows<const HALVES: usize>(
    a: *const bf16,
    panel: *const bf16,
    steps: usize,
    out: *mut f32,
    stride: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); HALVES]; ROWS];
    for step in 0..steps {
        for pair in 0..HALF {
            // SAFETY: a tile of `a` has 16 rows of 32 numbers, one of the panel two halves of 16 lines of 32; pairs need
            // not be aligned. Both vector types are 512 bits.
            unsafe {
                let a = a.add(step * HALF * STEP + 2 * pair);
                let panel = panel.add(step * PANEL * STEP + pair * STEP);
                let mut columns = [_mm512_setzero_si512(); HALVES];
                for (half, column) in columns.iter_mut().enumerate() {
                    *column = _mm512_loadu_si512(panel.add(half * HALF * STEP).cast());
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let both = a.add(row * STEP).cast::<i32>().read_unaligned();
                    let both = as_pairs(_mm512_set1_epi32(both));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm512_dpbf16_ps(*sum, both, as_pairs(column));
                    }
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: a row takes PANEL numbers, for which the caller vouches.
            unsafe { _mm512_storeu_ps(out.add(row * stride + half * HALF), *sum) };
        }
    }
}

fn as_pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both types are 512 bits, of which every value is one of either.
    unsafe { std::mem::transmute(bits) }
}

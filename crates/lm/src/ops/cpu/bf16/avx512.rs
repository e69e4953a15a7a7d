//! The dot products of pairs that AVX512_BF16 brought.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use half::bf16;

use super::{HALF, PANEL, STEP, TILE_ROWS};

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
pub(super) unsafe fn multiply(a: &[bf16], panel: &[bf16], k: usize, out: *mut f32, stride: usize) {
    for first in (0..TILE_ROWS).step_by(ROWS) {
        let half = first / HALF;
        let a = &a[half * HALF * k..][..HALF * k];
        // SAFETY: this kernel is only chosen where its instructions were detected; the caller vouches for the rows.
        unsafe { multiply_rows(a, first % HALF, panel, out.add(first * stride), stride) };
    }
}

/// # Safety
/// The CPU has AVX512F, AVX512BW and AVX512_BF16; `out` may be written at [`PANEL`] numbers of [`ROWS`] rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_rows(a: &[bf16], first: usize, panel: &[bf16], out: *mut f32, stride: usize) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let tiles = a.chunks_exact(HALF * STEP);
    for (a, panel) in tiles.zip(panel.chunks_exact(PANEL * STEP)) {
        let (left, right) = panel.split_at(HALF * STEP);
        let pairs = left.chunks_exact(STEP).zip(right.chunks_exact(STEP));
        for (pair, (left, right)) in pairs.enumerate() {
            let columns = [load(left), load(right)];
            for (row, sums) in sums.iter_mut().enumerate() {
                let both = &a[(first + row) * STEP + 2 * pair..][..2];
                let bits = u32::from(both[1].to_bits()) << 16 | u32::from(both[0].to_bits());
                let both = _mm512_set1_epi32(bits.cast_signed());
                // SAFETY: both types are 512 bits.
                let both = unsafe { std::mem::transmute::<__m512i, __m512bh>(both) };
                sums[0] = _mm512_dpbf16_ps(sums[0], both, columns[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], both, columns[1]);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: a row takes PANEL numbers, for which the caller vouches.
        unsafe {
            let to = out.add(row * stride);
            _mm512_storeu_ps(to, sums[0]);
            _mm512_storeu_ps(to.add(PANEL / 2), sums[1]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn load(numbers: &[bf16]) -> __m512bh {
    assert_eq!(numbers.len(), STEP);
    // SAFETY: 32 numbers of 16 bits were just counted; both types are 512 bits.
    unsafe {
        let bits = _mm512_loadu_si512(numbers.as_ptr().cast());
        std::mem::transmute::<__m512i, __m512bh>(bits)
    }
}

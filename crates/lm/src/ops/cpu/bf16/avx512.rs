//! The dot products of pairs that AVX512_BF16 brought.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use half::bf16;

use super::{PANEL, TILE_ROWS};

/// Rows whose sums are in registers at a time: two for each row, of 32.
const ROWS: usize = 8;

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512f")
}

/// As [`super::multiply`], which has checked the lengths.
pub(super) fn multiply(a: &[bf16], panel: &[bf16], k: usize, tile: &mut [f32]) {
    for first in (0..TILE_ROWS).step_by(ROWS) {
        let a = &a[first * k..][..ROWS * k];
        let tile = &mut tile[first * PANEL..][..ROWS * PANEL];
        // SAFETY: this kernel is only chosen where its instructions were detected.
        unsafe { multiply_rows(a, panel, k, tile) };
    }
}

/// # Safety
/// The CPU has AVX512F, AVX512BW and AVX512_BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn multiply_rows(a: &[bf16], panel: &[bf16], k: usize, tile: &mut [f32]) {
    assert!(a.len() == ROWS * k && panel.len() == PANEL * k && tile.len() == ROWS * PANEL);
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for pair in 0..k / 2 {
        // SAFETY: a pair of summands takes 2·PANEL numbers of the panel, whose length was checked.
        let columns: [__m512bh; 2] = unsafe {
            let from = panel.as_ptr().add(pair * 2 * PANEL);
            [
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())),
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(
                    from.add(PANEL).cast(),
                )),
            ]
        };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: two numbers at an even place of a row of k, which is even. Both types are 512 bits.
            let both: __m512bh = unsafe {
                let from = a.as_ptr().add(row * k + 2 * pair);
                let both = from.cast::<[u8; 4]>().read();
                let both = _mm512_set1_epi32(i32::from_ne_bytes(both));
                std::mem::transmute::<__m512i, __m512bh>(both)
            };
            sums[0] = _mm512_dpbf16_ps(sums[0], both, columns[0]);
            sums[1] = _mm512_dpbf16_ps(sums[1], both, columns[1]);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: a row of the tile takes PANEL numbers, whose length was checked.
        unsafe {
            let to = tile.as_mut_ptr().add(row * PANEL);
            _mm512_storeu_ps(to, sums[0]);
            _mm512_storeu_ps(to.add(PANEL / 2), sums[1]);
        }
    }
}

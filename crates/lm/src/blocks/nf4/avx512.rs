//! Sixteen look-ups at a time: the table of codes fits one register.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::{
    _mm_loadu_si128, _mm512_cvtepu8_epi32, _mm512_loadu_ps, _mm512_mul_ps, _mm512_permutexvar_ps,
    _mm512_set1_ps, _mm512_srli_epi32, _mm512_storeu_ps,
};

use super::{CODES, RUN, RUN_BYTES};

#[inline(always)]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// As [`super::decode`].
#[inline(always)]
pub(super) fn decode(nibbles: &[u8; RUN_BYTES], scale: f32, values: &mut [f32; RUN]) {
    // SAFETY: this is only called where its instructions were detected.
    unsafe { decode_run(nibbles, scale, values) }
}

#[target_feature(enable = "avx512f")]
fn decode_run(nibbles: &[u8; RUN_BYTES], scale: f32, values: &mut [f32; RUN]) {
    let scale = _mm512_set1_ps(scale);
    let (low, high) = values.split_at_mut(RUN_BYTES);
    // SAFETY: each load and store is of as many bytes as the array or half behind its pointer has: 16 codes of 4, 16
    // nibbles of 1, and twice 16 values of 4.
    unsafe {
        let codes = _mm512_loadu_ps(CODES.as_ptr());
        let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(nibbles.as_ptr().cast()));
        // A look-up goes by the lowest four bits alone.
        let first = _mm512_permutexvar_ps(bytes, codes);
        let second = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(bytes), codes);
        _mm512_storeu_ps(low.as_mut_ptr(), _mm512_mul_ps(first, scale));
        _mm512_storeu_ps(high.as_mut_ptr(), _mm512_mul_ps(second, scale));
    }
}

//! A square of pairs, rows as columns: how a row of a matrix becomes a column of the right factor.

use half::bf16;

use super::{HALF, STEP};

/// 32 summands of each of 16 rows, `stride` apart, to 16 lines that hold one pair of summands of every row.
pub(super) fn turn(rows: &[bf16], stride: usize, tile: &mut [bf16]) {
    assert!(rows.len() >= (HALF - 1) * stride + STEP && tile.len() == HALF * STEP);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        #[expect(unsafe_code, reason = "the feature was just detected")]
        // SAFETY: the CPU has it, and the lengths were checked.
        unsafe {
            avx512(rows, stride, tile);
        }
        return;
    }
    plain(rows, stride, tile);
}

/// The definition.
fn plain(rows: &[bf16], stride: usize, tile: &mut [bf16]) {
    for (pair, line) in tile.chunks_exact_mut(STEP).enumerate() {
        for (row, place) in line.chunks_exact_mut(2).enumerate() {
            place.copy_from_slice(&rows[row * stride + 2 * pair..][..2]);
        }
    }
}

/// Four rounds, of which each brings together what is twice as far apart.
///
/// # Safety
/// The CPU has AVX512F, `rows` holds 32 numbers behind each of 16 multiples of `stride`, and `tile` is 16 · 32 numbers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "vector loads and stores take pointers")]
unsafe fn avx512(rows: &[bf16], stride: usize, tile: &mut [bf16]) {
    use std::arch::x86_64::{
        _mm512_loadu_si512, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512,
        _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;

    let mut a = [_mm512_setzero_si512(); HALF];
    for (row, a) in a.iter_mut().enumerate() {
        // SAFETY: the caller vouches for 64 bytes there.
        *a = unsafe { _mm512_loadu_si512(rows.as_ptr().add(row * stride).cast()) };
    }
    let mut b = a;
    for i in (0..HALF).step_by(2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for i in (0..HALF).step_by(4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for i in [0, 1, 2, 3, 8, 9, 10, 11] {
        b[i] = _mm512_shuffle_i32x4::<EVEN>(a[i], a[i + 4]);
        b[i + 4] = _mm512_shuffle_i32x4::<ODD>(a[i], a[i + 4]);
    }
    for i in 0..HALF / 2 {
        a[i] = _mm512_shuffle_i32x4::<EVEN>(b[i], b[i + 8]);
        a[i + 8] = _mm512_shuffle_i32x4::<ODD>(b[i], b[i + 8]);
    }
    for (line, a) in tile.chunks_exact_mut(STEP).zip(a) {
        // SAFETY: a line is 64 bytes.
        unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), a) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        for stride in [STEP, 35] {
            let rows: Vec<_> = (0..u16::MAX).map(bf16::from_bits).collect();
            let mut expected = [bf16::ZERO; HALF * STEP];
            let mut found = expected;
            plain(&rows, stride, &mut expected);
            assert_eq!(
                usize::from(expected[3 * STEP + 2 * 5 + 1].to_bits()),
                5 * stride + 7
            );
            turn(&rows, stride, &mut found);
            let bits = |tile: [bf16; HALF * STEP]| tile.map(bf16::to_bits);
            assert_eq!(bits(found), bits(expected));
        }
    }
}

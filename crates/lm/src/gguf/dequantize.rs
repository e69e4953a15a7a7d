//! Block formats to f32, value for value as llama.cpp defines them.
//!
//! A block is a scale (and for some formats a minimum) shared by 32 values, or by 256 values in
//! eight or sixteen groups with six- or eight-bit scales of their own. Here all are read 32 values
//! at a time, so that a product can ask for the columns it is at and need not decode 256.

#![expect(
    clippy::inline_always,
    reason = "or a loop is compiled for the narrowest vectors"
)]

use half::{bf16, f16};

use super::tensor_info::TensorType;
use crate::ops::cpu::vector::vectorized;

/// Values of a run: what is decoded at a time.
pub(crate) const RUN: usize = 32;

/// Turns whole blocks in `raw` into `values`.
pub(super) fn dequantize(kind: TensorType, raw: &[u8], values: &mut [f32]) {
    read(kind, raw, 0, values);
}

/// Fills `values` with those of the blocks in `raw` from `first` on, a multiple of [`RUN`].
///
/// # Panics
/// When `raw` ends before.
pub(crate) fn read(kind: TensorType, raw: &[u8], first: usize, values: &mut [f32]) {
    debug_assert!(first.is_multiple_of(RUN), "values are read run by run");
    let run = first / RUN;
    match kind {
        TensorType::F32 => read_f32(&raw[first * 4..], values),
        TensorType::F16 => read_f16(&raw[first * 2..], values),
        TensorType::Bf16 => read_bf16(&raw[first * 2..], values),
        TensorType::Q4_0 => read_q4_0(raw, run, values),
        TensorType::Q4_1 => read_q4_1(raw, run, values),
        TensorType::Q5_0 => read_q5_0(raw, run, values),
        TensorType::Q5_1 => read_q5_1(raw, run, values),
        TensorType::Q8_0 => read_q8_0(raw, run, values),
        TensorType::Q4K => read_q4_k(raw, run, values),
        TensorType::Q5K => read_q5_k(raw, run, values),
        TensorType::Q6K => read_q6_k(raw, run, values),
    }
}

vectorized! {
    fn read_f32(raw: &[u8], values: &mut [f32]) {
        for (b, value) in raw.as_chunks::<4>().0.iter().zip(values) {
            *value = f32::from_le_bytes(*b);
        }
    }

    fn read_f16(raw: &[u8], values: &mut [f32]) {
        for (b, value) in raw.as_chunks::<2>().0.iter().zip(values) {
            *value = f16::from_le_bytes(*b).to_f32();
        }
    }

    fn read_bf16(raw: &[u8], values: &mut [f32]) {
        for (b, value) in raw.as_chunks::<2>().0.iter().zip(values) {
            *value = bf16::from_le_bytes(*b).to_f32();
        }
    }

    fn read_q4_0(raw: &[u8], first: usize, values: &mut [f32]) {
        runs::<18, 1>(raw, first, values, |block, _, values| q4_0(block, values));
    }

    fn read_q4_1(raw: &[u8], first: usize, values: &mut [f32]) {
        runs::<20, 1>(raw, first, values, |block, _, values| q4_1(block, values));
    }

    fn read_q5_0(raw: &[u8], first: usize, values: &mut [f32]) {
        runs::<22, 1>(raw, first, values, |block, _, values| q5_0(block, values));
    }

    fn read_q5_1(raw: &[u8], first: usize, values: &mut [f32]) {
        runs::<24, 1>(raw, first, values, |block, _, values| q5_1(block, values));
    }

    fn read_q8_0(raw: &[u8], first: usize, values: &mut [f32]) {
        runs::<34, 1>(raw, first, values, |block, _, values| q8_0(block, values));
    }

    fn read_q4_k(raw: &[u8], first: usize, values: &mut [f32]) {
        runs::<144, 8>(raw, first, values, q4_k);
    }

    fn read_q5_k(raw: &[u8], first: usize, values: &mut [f32]) {
        runs::<176, 8>(raw, first, values, q5_k);
    }

    fn read_q6_k(raw: &[u8], first: usize, values: &mut [f32]) {
        runs::<210, 8>(raw, first, values, q6_k);
    }
}

/// Decodes the runs from number `first` on; `decode` is given a run's block and its number there.
#[inline(always)]
fn runs<const BYTES: usize, const RUNS: usize>(
    raw: &[u8],
    first: usize,
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], usize, &mut [f32; RUN]),
) {
    let (blocks, _) = raw.as_chunks::<BYTES>();
    for (index, values) in values.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
        let run = first + index;
        decode(&blocks[run / RUNS], run % RUNS, values);
    }
}

#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[inline(always)]
fn low(byte: u8) -> u8 {
    byte & 0x0F
}

#[inline(always)]
fn high(byte: u8) -> u8 {
    byte >> 4
}

/// f16 scale; 32 four-bit values around 8, the first half in the low nibbles.
#[inline(always)]
fn q4_0(block: &[u8; 18], values: &mut [f32; RUN]) {
    let scale = half_at(block, 0);
    let (first, second) = values.split_at_mut(16);
    for ((byte, a), b) in block[2..].iter().zip(first).zip(second) {
        *a = (f32::from(low(*byte)) - 8.0) * scale;
        *b = (f32::from(high(*byte)) - 8.0) * scale;
    }
}

/// f16 scale, f16 minimum; four-bit values.
#[inline(always)]
fn q4_1(block: &[u8; 20], values: &mut [f32; RUN]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (first, second) = values.split_at_mut(16);
    for ((byte, a), b) in block[4..].iter().zip(first).zip(second) {
        *a = f32::from(low(*byte)) * scale + minimum;
        *b = f32::from(high(*byte)) * scale + minimum;
    }
}

/// f16 scale; the fifth bits of all 32 values; four-bit values around 16.
#[inline(always)]
fn q5_0(block: &[u8; 22], values: &mut [f32; RUN]) {
    let scale = half_at(block, 0);
    five_bits(&block[2..6], &block[6..], values, |q| {
        (f32::from(q) - 16.0) * scale
    });
}

/// As [`q5_0`], with an f16 minimum instead of the middle.
#[inline(always)]
fn q5_1(block: &[u8; 24], values: &mut [f32; RUN]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    five_bits(&block[4..8], &block[8..], values, |q| {
        f32::from(q) * scale + minimum
    });
}

#[inline(always)]
fn five_bits(fifth: &[u8], nibbles: &[u8], values: &mut [f32; RUN], decode: impl Fn(u8) -> f32) {
    let fifth = u32::from_le_bytes([fifth[0], fifth[1], fifth[2], fifth[3]]);
    let bit = |index: usize| u8::from((fifth >> index) & 1 == 1) << 4;
    let (first, second) = values.split_at_mut(16);
    for (index, ((byte, a), b)) in nibbles.iter().zip(first).zip(second).enumerate() {
        *a = decode(low(*byte) | bit(index));
        *b = decode(high(*byte) | bit(index + 16));
    }
}

/// f16 scale; 32 signed bytes.
#[inline(always)]
fn q8_0(block: &[u8; 34], values: &mut [f32; RUN]) {
    let scale = half_at(block, 0);
    for (byte, value) in block[2..].iter().zip(values) {
        *value = f32::from(byte.cast_signed()) * scale;
    }
}

/// Scale and minimum of group `index` (of eight), six bits each, spread over twelve bytes.
#[inline(always)]
fn scale_and_minimum(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, minimum) = if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let top = |byte: u8| (byte >> 6) << 4;
        let shared = packed[index + 4];
        (
            low(shared) | top(packed[index - 4]),
            high(shared) | top(packed[index]),
        )
    };
    (f32::from(scale), f32::from(minimum))
}

/// f16 scale, f16 minimum, twelve bytes of group scales, 256 four-bit values: of each 64, the
/// first 32 in the low nibbles.
#[inline(always)]
fn q4_k(block: &[u8; 144], group: usize, values: &mut [f32; RUN]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (packed, nibbles) = block[4..].split_at(12);
    let (group_scale, group_minimum) = scale_and_minimum(packed, group);
    let (scale, minimum) = (scale * group_scale, minimum * group_minimum);
    let shift = group % 2 * 4;
    for (byte, value) in nibbles[group / 2 * 32..].iter().zip(values) {
        *value = scale * f32::from(low(byte >> shift)) - minimum;
    }
}

/// As [`q4_k`], with the fifth bit of group `g` in bit `g` of 32 bytes.
#[inline(always)]
fn q5_k(block: &[u8; 176], group: usize, values: &mut [f32; RUN]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let (packed, rest) = block[4..].split_at(12);
    let (fifths, nibbles) = rest.split_at(32);
    let (group_scale, group_minimum) = scale_and_minimum(packed, group);
    let (scale, minimum) = (scale * group_scale, minimum * group_minimum);
    let shift = group % 2 * 4;
    let bytes = &nibbles[group / 2 * 32..];
    for ((byte, fifth), value) in bytes.iter().zip(fifths).zip(values) {
        let q = low(byte >> shift) | (((fifth >> group) & 1) << 4);
        *value = scale * f32::from(q) - minimum;
    }
}

/// 256 low nibbles, 256 upper bit pairs, sixteen signed group scales, f16 scale; values around 32.
#[inline(always)]
fn q6_k(block: &[u8; 210], run: usize, values: &mut [f32; RUN]) {
    let scale = half_at(block, 208);
    let (half, quarter) = (run / 4, run % 4);
    let nibbles = &block[half * 64 + quarter % 2 * 32..][..RUN];
    let pairs = &block[128 + half * 32..][..RUN];
    let scales = &block[192 + run * 2..][..2];
    let shift = quarter / 2 * 4;
    for (part, group_scale) in scales.iter().enumerate() {
        let scale = scale * f32::from(group_scale.cast_signed());
        let group = part * 16..(part + 1) * 16;
        let bytes = nibbles[group.clone()].iter().zip(&pairs[group.clone()]);
        for ((byte, pair), value) in bytes.zip(&mut values[group]) {
            let q = low(byte >> shift) | (((pair >> (2 * quarter)) & 3) << 4);
            *value = scale * (f32::from(q) - 32.0);
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "every value here is exact in f32")]
mod tests {
    use super::*;

    fn decode(kind: TensorType, raw: &[u8]) -> Vec<f32> {
        let mut values = vec![f32::NAN; raw.len() / kind.block_bytes() * kind.block_len()];
        dequantize(kind, raw, &mut values);
        values
    }

    /// 0.5 as f16.
    const HALF: [u8; 2] = [0x00, 0x38];
    /// 2.0 as f16.
    const TWO: [u8; 2] = [0x00, 0x40];

    #[test]
    fn plain_floats_are_read_little_endian() {
        assert_eq!(decode(TensorType::F32, &(-1.25f32).to_le_bytes()), [-1.25]);
        assert_eq!(decode(TensorType::F16, &[HALF, TWO].concat()), [0.5, 2.0]);
        assert_eq!(decode(TensorType::Bf16, &[0x80, 0x3F]), [1.0]);
    }

    #[test]
    fn q4_0_by_hand() {
        let mut block = HALF.to_vec();
        block.extend([0x0F; 16]); // low 15, high 0
        let values = decode(TensorType::Q4_0, &block);
        assert_eq!(values[..16], [3.5; 16]);
        assert_eq!(values[16..], [-4.0; 16]);
    }

    #[test]
    fn q4_1_by_hand() {
        let mut block = [HALF, TWO].concat();
        block.extend([0x31; 16]); // low 1, high 3
        let values = decode(TensorType::Q4_1, &block);
        assert_eq!(values[..16], [2.5; 16]);
        assert_eq!(values[16..], [3.5; 16]);
    }

    #[test]
    fn q5_by_hand() {
        let fifth = (1u32 | 1 << 31).to_le_bytes(); // the first value and the last
        let mut block = HALF.to_vec();
        block.extend(fifth);
        block.extend([0x21; 16]); // low 1, high 2
        let values = decode(TensorType::Q5_0, &block);
        assert_eq!(
            [values[0], values[1], values[16], values[31]],
            [0.5, -7.5, -7.0, 1.0]
        );
        let mut block = [HALF, TWO].concat();
        block.extend(fifth);
        block.extend([0x21; 16]);
        let values = decode(TensorType::Q5_1, &block);
        assert_eq!(
            [values[0], values[1], values[16], values[31]],
            [10.5, 2.5, 3.0, 11.0]
        );
    }

    #[test]
    fn q8_0_by_hand() {
        let mut block = HALF.to_vec();
        block.extend((0..32).map(|i| if i == 0 { 0x80 } else { i }));
        let values = decode(TensorType::Q8_0, &block);
        assert_eq!([values[0], values[1], values[31]], [-64.0, 0.5, 15.5]);
    }

    #[test]
    fn q4_k_and_q5_k_by_hand() {
        let mut packed = [0u8; 12];
        packed[0] = 3 | 0b01 << 6; // scale 0 is 3; the top bits of scale 4 are 01
        packed[4] = 5 | 0b10 << 6; // minimum 0 is 5; the top bits of minimum 4 are 10
        packed[8] = 0x97; // scale 4 ends in 7, minimum 4 in 9
        let mut head = [HALF, TWO].concat();
        head.extend(packed);
        let mut q4 = head.clone();
        q4.extend([0x42; 128]); // low 2, high 4
        let values = decode(TensorType::Q4K, &q4);
        assert_eq!(values[0], 0.5 * 3.0 * 2.0 - 2.0 * 5.0);
        assert_eq!(values[32], 0.0); // group 1 has neither scale nor minimum
        assert_eq!(values[128], 0.5 * 23.0 * 2.0 - 2.0 * 41.0);
        let mut q5 = head;
        q5.extend([1 << 4; 32]); // the fifth bit of group 4 only
        q5.extend([0x42; 128]);
        let values = decode(TensorType::Q5K, &q5);
        assert_eq!(values[0], 0.5 * 3.0 * 2.0 - 2.0 * 5.0);
        assert_eq!(values[128], 0.5 * 23.0 * 18.0 - 2.0 * 41.0);
    }

    #[test]
    fn q6_k_by_hand() {
        let mut block = vec![0u8; 210];
        block[0] = 0x5A; // value 0 has the nibble 10, value 64 the nibble 5
        block[128] = 0b00_01_00_11; // value 0 has the pair 11, value 64 the pair 01
        block[192] = 0xFE; // group 0 has scale -2
        block[196] = 2; // group 4 (values 64 to 79) has scale 2
        block[208..].copy_from_slice(&HALF);
        let values = decode(TensorType::Q6K, &block);
        assert_eq!(values[0], 0.5 * -2.0 * (58.0 - 32.0));
        assert_eq!(values[1], 0.5 * -2.0 * (0.0 - 32.0));
        assert_eq!(values[64], 0.5 * 2.0 * (21.0 - 32.0));
        assert_eq!(values[128], 0.0);
    }

    /// Random blocks, dequantised by the `gguf` package's numpy code. See `tests/fixtures/README.md`.
    #[test]
    fn every_format_equals_the_reference_on_random_blocks() {
        let golden = include_str!("../../tests/fixtures/gguf_blocks.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let kinds = [
            TensorType::F16,
            TensorType::Bf16,
            TensorType::Q4_0,
            TensorType::Q4_1,
            TensorType::Q5_0,
            TensorType::Q5_1,
            TensorType::Q8_0,
            TensorType::Q4K,
            TensorType::Q5K,
            TensorType::Q6K,
        ];
        for kind in kinds {
            let case = &golden[kind.to_string()];
            let bytes = |key: &str| hex_bytes(case[key].as_str().unwrap());
            let expected: Vec<f32> = bytes("values")
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            assert!(expected.len() >= 2 * kind.block_len(), "{kind}");
            assert_eq!(decode(kind, &bytes("blocks")), expected, "{kind}");
        }
    }

    fn hex_bytes(text: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }
}

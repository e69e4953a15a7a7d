//! Four-bit normal floats with scales that are quantised too (Dettmers et al. 2023, "QLoRA"), number for number as
//! bitsandbytes makes them where a row is a whole number of blocks.
//!
//! A block is 64 values of a row, divided by the largest magnitude among them, each then replaced by the nearest of sixteen
//! quantiles of the normal distribution. A row that ends within a block has its rest filled with zeros.

#![expect(
    clippy::inline_always,
    reason = "or a loop is compiled for the narrowest vectors"
)]

#[cfg(target_arch = "x86_64")]
mod avx512;
mod scales;

use std::fmt;

use rayon::prelude::*;

use super::RUN;
use crate::ops::cpu::vector::vectorized;
use scales::Scales;

/// Values of a block.
const BLOCK: usize = 64;
/// Bytes of a run: its first half in the low nibbles.
const RUN_BYTES: usize = RUN / 2;
const BLOCK_BYTES: usize = BLOCK / 2;

/// The quantiles, as bitsandbytes and the paper's appendix print them.
const CODES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Midway between neighbouring codes.
const BORDERS: [f32; 15] = {
    let mut borders = [0.0; 15];
    let mut index = 0;
    while index < 15 {
        borders[index] = f32::midpoint(CODES[index], CODES[index + 1]);
        index += 1;
    }
    borders
};

/// Rows in NF4.
pub(crate) struct Nf4 {
    columns: usize,
    n_rows: usize,
    /// [`BLOCK_BYTES`] for each block.
    nibbles: Box<[u8]>,
    scales: Scales,
}

impl Nf4 {
    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.nibbles.len() + self.scales.size_bytes()
    }

    pub(super) fn read(&self, row: usize, first: usize, values: &mut [f32]) {
        let first_run = row * self.columns.div_ceil(BLOCK) * (BLOCK / RUN) + first / RUN;
        let nibbles = self.nibbles[first_run * RUN_BYTES..].as_chunks().0;
        let scale = |index: usize| {
            let run = first_run + index;
            self.scales.get(run / (BLOCK / RUN))
        };
        let (runs, rest) = values.as_chunks_mut();
        for (index, (run, nibbles)) in runs.iter_mut().zip(nibbles).enumerate() {
            decode(nibbles, scale(index), run);
        }
        if !rest.is_empty() {
            let (mut run, index) = ([0.0; RUN], runs.len());
            decode(&nibbles[index], scale(index), &mut run);
            rest.copy_from_slice(&run[..rest.len()]);
        }
    }
}

impl fmt::Debug for Nf4 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Nf4({}×{})", self.n_rows, self.columns)
    }
}

#[inline(always)]
fn decode(nibbles: &[u8; RUN_BYTES], scale: f32, values: &mut [f32; RUN]) {
    #[cfg(target_arch = "x86_64")]
    if avx512::is_available() {
        avx512::decode(nibbles, scale, values);
        return;
    }
    decode_one_by_one(nibbles, scale, values);
}

fn decode_one_by_one(nibbles: &[u8; RUN_BYTES], scale: f32, values: &mut [f32; RUN]) {
    let (low, high) = values.split_at_mut(RUN_BYTES);
    for ((byte, low), high) in nibbles.iter().zip(low).zip(high) {
        *low = CODES[usize::from(byte & 0x0F)] * scale;
        *high = CODES[usize::from(byte >> 4)] * scale;
    }
}

/// Makes [`Nf4`] of rows as they come.
pub(crate) struct Quantizer {
    columns: usize,
    n_rows: usize,
    nibbles: Vec<u8>,
    /// The largest magnitude of each block.
    largest: Vec<f32>,
}

impl Quantizer {
    pub(crate) fn new(columns: usize) -> Self {
        Self {
            columns,
            n_rows: 0,
            nibbles: Vec::new(),
            largest: Vec::new(),
        }
    }

    /// Room for `n_rows` more rows, so that none is taken that is not needed.
    pub(crate) fn reserve(&mut self, n_rows: usize) {
        let n_blocks = n_rows * self.columns.div_ceil(BLOCK);
        self.nibbles.reserve_exact(n_blocks * BLOCK_BYTES);
        self.largest.reserve_exact(n_blocks);
    }

    /// Appends whole rows of finite values.
    pub(crate) fn push(&mut self, rows: &[f32]) {
        let row_blocks = self.columns.div_ceil(BLOCK);
        let first = self.largest.len();
        self.n_rows += rows.len() / self.columns;
        let n_blocks = self.n_rows * row_blocks;
        self.nibbles.resize(n_blocks * BLOCK_BYTES, 0);
        self.largest.resize(n_blocks, 0.0);
        let nibbles = &mut self.nibbles[first * BLOCK_BYTES..];
        rows.par_chunks_exact(self.columns)
            .zip(nibbles.par_chunks_exact_mut(row_blocks * BLOCK_BYTES))
            .zip(self.largest[first..].par_chunks_exact_mut(row_blocks))
            .for_each(|((row, nibbles), largest)| encode(row, nibbles, largest));
    }

    pub(crate) fn finish(self) -> Nf4 {
        Nf4 {
            columns: self.columns,
            n_rows: self.n_rows,
            nibbles: self.nibbles.into_boxed_slice(),
            scales: Scales::new(&self.largest),
        }
    }
}

vectorized! {
    fn encode(row: &[f32], nibbles: &mut [u8], largest: &mut [f32]) {
        let blocks = row.chunks(BLOCK).zip(nibbles.as_chunks_mut::<BLOCK_BYTES>().0);
        for ((values, nibbles), largest) in blocks.zip(largest) {
            let mut block = [0.0; BLOCK];
            block[..values.len()].copy_from_slice(values);
            *largest = block.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
            let inverse = if *largest > 0.0 { 1.0 / *largest } else { 0.0 };
            let mut codes = [0_u8; BLOCK];
            for (code, value) in codes.iter_mut().zip(&block) {
                let value = value * inverse;
                // The number of borders below a value is its nearest code.
                *code = BORDERS.iter().map(|border| u8::from(value > *border)).sum();
            }
            let (runs, _) = codes.as_chunks::<RUN>();
            for (codes, nibbles) in runs.iter().zip(nibbles.as_chunks_mut::<RUN_BYTES>().0) {
                let (low, high) = codes.split_at(RUN_BYTES);
                for ((byte, low), high) in nibbles.iter_mut().zip(low).zip(high) {
                    *byte = low | high << 4;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::blocks::testing::quantized;
    use crate::ops::testing::random_values;

    /// What bitsandbytes makes of [`hashed`]. See `tests/fixtures/README.md`.
    fn reference() -> Value {
        let text = include_str!("../../tests/fixtures/nf4_blocks.json");
        serde_json::from_str(text).unwrap()
    }

    fn bytes(reference: &Value, key: &str) -> Vec<u8> {
        let text = reference[key].as_str().unwrap();
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    fn floats(reference: &Value, key: &str) -> Vec<f32> {
        let bytes = bytes(reference, key);
        let (floats, _) = bytes.as_chunks();
        floats.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    /// The matrix of `nf4_blocks.py`.
    fn hashed() -> Vec<f32> {
        (0..17 * 1024_u64)
            .map(|index| {
                let bits = (index * 2_654_435_761 + 12_345) % (1 << 32);
                let bits = ((bits ^ (bits >> 13)) * 2_246_822_519) % (1 << 32);
                #[expect(clippy::cast_precision_loss, reason = "24 bits")]
                let value = (bits >> 8) as f32 / 16_777_216.0 - 0.5;
                value * 0.5_f32.powi(((index / 64 * 7) % 5).try_into().unwrap())
            })
            .collect()
    }

    /// The code of every value, row by row.
    fn codes(nf4: &Nf4) -> Vec<u8> {
        let (runs, _) = nf4.nibbles.as_chunks::<RUN_BYTES>();
        let low = |run: &[u8; RUN_BYTES]| run.map(|byte| byte & 0x0F);
        let high = |run: &[u8; RUN_BYTES]| run.map(|byte| byte >> 4);
        runs.iter()
            .flat_map(|run| [low(run), high(run)].concat())
            .collect()
    }

    #[test]
    fn tables_and_numbers_are_those_of_bitsandbytes() {
        let reference = reference();
        assert_eq!(floats(&reference, "quantiles"), CODES);
        for (found, expected) in scales::CODES.iter().zip(floats(&reference, "scale_values")) {
            assert!((found - expected).abs() <= 1e-7, "{found} for {expected}");
        }
        let nf4 = quantized(&hashed(), 1024);
        let expected: Vec<u8> = bytes(&reference, "codes")
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 0x0F])
            .collect();
        assert_eq!(codes(&nf4), expected);
        let (found, expected) = (&nf4.scales.codes, bytes(&reference, "scale_codes"));
        assert_eq!(found.len(), expected.len());
        let differences = found.iter().zip(&expected).map(|(f, e)| f.abs_diff(*e));
        // The mean's last bit lets a scale midway between two codes fall to either side: here one does.
        assert!(differences.map(u32::from).sum::<u32>() <= 1);
        let largest = floats(&reference, "scale_largest");
        assert_eq!(nf4.scales.largest.len(), largest.len());
        for (found, expected) in nf4.scales.largest.iter().zip(largest) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
        let mean = reference["scale_mean"].as_f64().unwrap();
        assert!((f64::from(nf4.scales.mean) - mean).abs() < 1e-6);
        // Every eighth row was written down.
        let expected = floats(&reference, "restored");
        for (row, expected) in [0, 8, 16].into_iter().zip(expected.chunks(1024)) {
            let mut found = vec![0.0; 1024];
            nf4.read(row, 0, &mut found);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
            }
        }
    }

    #[test]
    fn each_value_becomes_the_nearest_code_of_its_block() {
        // The last block of a row has six values.
        let values = random_values("values", 3 * 70);
        let codes = codes(&quantized(&values, 70));
        for (row, codes) in values.chunks(70).zip(codes.chunks(128)) {
            for (block, codes) in row.chunks(BLOCK).zip(codes.chunks(BLOCK)) {
                let largest = block.iter().fold(0.0, |l: f32, value| l.max(value.abs()));
                for (value, code) in block.iter().zip(codes) {
                    let error = |code: &f32| (code - value / largest).abs();
                    let best = CODES.iter().map(error).fold(f32::INFINITY, f32::min);
                    assert!(error(&CODES[usize::from(*code)]) <= best + 1e-6);
                }
            }
        }
    }

    #[test]
    fn a_number_takes_little_more_than_four_bits() {
        let nf4 = quantized(&random_values("values", 64 * 4096), 4096);
        // Eight bits for 64 numbers, 32 for 256 times as many, and one mean.
        let bytes = 64 * 4096 / 2 + 64 * 64 + 4 * 16 + 4;
        assert_eq!(nf4.size_bytes(), bytes);
    }

    #[test]
    fn zeros_and_equal_blocks_survive() {
        let mut values = vec![0.0; 64];
        values.extend([0.5; 64]);
        let mut found = vec![f32::NAN; 128];
        quantized(&values, 128).read(0, 0, &mut found);
        for (found, expected) in found.iter().zip(&values) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
        quantized(&values[64..], 64).read(0, 0, &mut found[..64]);
        assert_eq!(found[..64], values[64..]);
    }

    #[test]
    fn whichever_instructions_decode_the_numbers_are_the_same() {
        let nf4 = quantized(&random_values("values", 2 * 256), 256);
        let (runs, _) = nf4.nibbles.as_chunks();
        for (run, nibbles) in runs.iter().enumerate() {
            let scale = nf4.scales.get(run / (BLOCK / RUN));
            let (mut found, mut expected) = ([0.0; RUN], [0.0; RUN]);
            decode(nibbles, scale, &mut found);
            decode_one_by_one(nibbles, scale, &mut expected);
            assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits));
        }
    }
}

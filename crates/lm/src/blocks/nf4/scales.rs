//! The blocks' scales, quantised a second time: eight bits each, relative to the largest of 256 (§3 of the QLoRA paper).
//!
//! The mean of all is taken off first, so that the codes' sign is of use.

use std::sync::LazyLock;

/// Scales that share a second scale.
const GROUP: usize = 256;

/// The eight-bit "dynamic" code of Dettmers (2015): a tenth, a hundredth and so on of fractions that get finer as the
/// numbers get larger, of both signs, with 0 and 1. In order.
pub(super) static CODES: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut codes = Vec::with_capacity(256);
    for exponent in 0..7_u8 {
        let n = 1_u32 << exponent;
        let border = |index: u32| 0.1 + 0.9 * f64::from(index) / f64::from(n);
        for index in 0..n {
            let middle = f64::midpoint(border(index), border(index + 1));
            let code = 10_f64.powi(i32::from(exponent) - 6) * middle;
            codes.extend([code, -code]);
        }
    }
    codes.extend([0.0, 1.0]);
    codes.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, reason = "an f32 is wanted")]
    let codes: Vec<f32> = codes.into_iter().map(|code| code as f32).collect();
    codes.try_into().expect("127 of each sign, 0 and 1")
});

/// A number for each block.
pub(super) struct Scales {
    pub(super) codes: Box<[u8]>,
    /// The largest magnitude of each group.
    pub(super) largest: Box<[f32]>,
    pub(super) mean: f32,
}

impl Scales {
    pub(super) fn new(scales: &[f32]) -> Self {
        let mean = mean(scales);
        let (mut codes, mut largest) = (Vec::with_capacity(scales.len()), Vec::new());
        for group in scales.chunks(GROUP) {
            let magnitudes = group.iter().map(|scale| (scale - mean).abs());
            let maximum = magnitudes.fold(0.0, f32::max);
            codes.extend(group.iter().map(|scale| nearest((scale - mean) / maximum)));
            largest.push(maximum);
        }
        Self {
            codes: codes.into_boxed_slice(),
            largest: largest.into_boxed_slice(),
            mean,
        }
    }

    /// The scale of block `index`.
    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> f32 {
        CODES[usize::from(self.codes[index])] * self.largest[index / GROUP] + self.mean
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.codes.len() + self.largest.len() * size_of::<f32>() + size_of::<f32>()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "summed in f64"
)]
fn mean(scales: &[f32]) -> f32 {
    let sum: f64 = scales.iter().copied().map(f64::from).sum();
    (sum / scales.len().max(1) as f64) as f32
}

/// The code nearest to `value`. A NaN, which a group of equal scales makes, is code 0's neighbour: whatever it is, it is
/// multiplied by nothing.
fn nearest(value: f32) -> u8 {
    let above = CODES.partition_point(|code| *code < value).min(255);
    let below = above.saturating_sub(1);
    let index = if value - CODES[below] < CODES[above] - value {
        below
    } else {
        above
    };
    u8::try_from(index).expect("256 codes")
}

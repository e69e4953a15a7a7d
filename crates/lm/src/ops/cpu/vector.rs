//! Loops that the compiler turns into vector instructions, for the widest vectors that the CPU at hand has.

/// Defines functions whose loops are compiled three times (AVX-512, AVX2, baseline) and chosen between at run time.
///
/// The body must be plain loops over slices. Sums need several accumulators side by side, or they stay scalar: a sum of
/// floats may not be reordered by the compiler.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $visibility fn $name($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    body($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    body($($argument),*)
                }
                match $crate::ops::cpu::vector::Width::detect() {
                    #[expect(unsafe_code, reason = "the features were detected on this CPU")]
                    // SAFETY: `detect` found every feature that the function enables.
                    $crate::ops::cpu::vector::Width::Avx512 => return unsafe { avx512($($argument),*) },
                    #[expect(unsafe_code, reason = "the features were detected on this CPU")]
                    // SAFETY: as above.
                    $crate::ops::cpu::vector::Width::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::ops::cpu::vector::Width::Baseline => {}
                }
            }
            body($($argument),*)
        }
    )*};
}
pub(crate) use vectorized;

/// The vector instructions of this CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Avx512,
    Avx2,
    Baseline,
}

impl Width {
    /// Asks the CPU; the answer is kept by the standard library.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn detect() -> Self {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            Self::Avx512
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            Self::Avx2
        } else {
            Self::Baseline
        }
    }
}

/// Numbers added side by side.
pub(in crate::ops) const LANES: usize = 16;

/// `e^x` within two units in the last place, as a polynomial that vectorises (Cody & Waite 1980; coefficients of
/// Cephes' `expf`). Not a number stays so; below -87 the result is about 10⁻³⁸ rather than smaller.
#[inline(always)]
pub(in crate::ops) fn exp(x: f32) -> f32 {
    // Adding this rounds to a whole number, which then stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Not `clamp`, `min` or `max`, which would lose a NaN or be slower.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5.0e-1;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    (p * r * r + r + 1.0) * power
}

/// The sum of `values`, [`LANES`] at a time.
#[inline(always)]
pub(in crate::ops) fn sum(values: &[f32]) -> f32 {
    fold(values, 0.0, |sum, value| sum + value, |a, b| a + b)
}

/// The largest of `values`; any result if one is NaN.
#[inline(always)]
pub(in crate::ops) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    fold(values, f32::NEG_INFINITY, larger, larger)
}

#[inline(always)]
fn fold(
    values: &[f32],
    start: f32,
    add: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = add(*lane, *value);
        }
    }
    let total = lanes.into_iter().fold(start, &join);
    rest.iter().fold(total, |total, value| add(total, *value))
}

/// `Σ a·b`, [`LANES`] at a time.
#[inline(always)]
pub(in crate::ops) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.into_iter().sum::<f32>() + rest
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "whole numbers")]
mod tests {
    use super::*;

    #[test]
    fn exp_is_as_good_as_the_libraries() {
        let mut x = -86.9_f32;
        while x < 87.9 {
            let (ours, theirs) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (ours / theirs - 1.0).abs() < 3e-7,
                "exp({x}) is {ours}, not {theirs}"
            );
            x += 0.003_7;
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn folds_take_the_rest_along() {
        let values: Vec<f32> = (0..37_u8).map(f32::from).collect();
        assert_eq!(sum(&values), 666.0);
        assert_eq!(max(&values), 36.0);
        assert_eq!(dot(&values, &values), 16_206.0);
        assert!(sum(&[1.0, f32::NAN]).is_nan());
    }
}

//! Random numbers that are a function of a key and a counter.
//!
//! No state: the number for an element does not depend on how many were drawn before it, nor on
//! the machine, so runs resume and repeat to the bit.

/// The output function of the splitmix64 generator: mixes all 64 bits.
pub(crate) fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in [0, 1) from the upper 53 bits.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64")]
pub(crate) fn unit_f64(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        // The first outputs of the generator seeded with 1234567.
        let step = 0x9E37_79B9_7F4A_7C15_u64;
        let outputs = [0, 1].map(|i| splitmix64(1_234_567_u64.wrapping_add(step.wrapping_mul(i))));
        assert_eq!(
            outputs,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
    }
}

//! Randomness without a state: every draw is a hash of what it is for.
//!
//! A resumed run needs no generator to be put back where it was; it asks for the same draws again.

/// Sebastiano Vigna's `splitmix64`: a 64-bit mixer that passes `BigCrush`.
pub fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One key out of several: any change of any part gives an unrelated key.
pub fn key(parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(0, |key, part| splitmix64(key ^ splitmix64(*part)))
}

/// The numbers `0..n` in an order that `key` decides (Fisher and Yates).
pub fn permutation(n: usize, key: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        let draw = splitmix64(key.wrapping_add(last as u64));
        // The high half of a product maps a 64-bit draw onto 0..=last without a visible bias.
        let chosen = (u128::from(draw) * (last as u128 + 1)) >> 64;
        order.swap(last, usize::try_from(chosen).expect("at most `last`"));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_its_published_values() {
        // The first outputs of the reference generator for seed 0: its state grows by the same constant.
        assert_eq!(splitmix64(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(splitmix64(0x9E37_79B9_7F4A_7C15), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn a_permutation_holds_everything_once() {
        let mut order = permutation(1000, 7);
        assert_ne!(order, permutation(1000, 8));
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}

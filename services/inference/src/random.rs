//! Randomness from the operating system, for what no client chose.

/// 24 random hexadecimal digits, for ids.
pub(crate) fn hex_digits() -> String {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    hex::encode(bytes)
}

/// A seed for a request that chose none.
pub(crate) fn seed() -> u64 {
    getrandom::u64().expect("the operating system has randomness")
}

//! The ratio of `rapidfuzz.fuzz.ratio`: 1 minus the insertions and deletions between both texts over the sum of their
//! lengths, which is twice a longest common subsequence over that sum.

use super::ngrams::longest_common_subsequence;
use super::number;

pub(super) fn ratio(input: &[char], reference: &[char]) -> f64 {
    let total = input.len() + reference.len();
    if total == 0 {
        return 1.0;
    }
    2.0 * number(longest_common_subsequence(input, reference)) / number(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::testing::assert_near;

    #[test]
    fn the_ratio_is_rapidfuzzs() {
        let of = |a: &str, b: &str| {
            ratio(
                &a.chars().collect::<Vec<_>>(),
                &b.chars().collect::<Vec<_>>(),
            )
        };
        // fuzz.ratio("this is a test", "this is a test!") == 96.55…
        assert_near(of("this is a test", "this is a test!"), 28.0 / 29.0);
        // "fuzzy wuzzy was a bear" and "wuzzy fuzzy was a bear" share all but two moved letters: 90.909…
        assert_near(
            of("fuzzy wuzzy was a bear", "wuzzy fuzzy was a bear"),
            40.0 / 44.0,
        );
        assert_near(of("kitten", "sitting"), 8.0 / 13.0);
        assert_near(of("日本", "日本語"), 4.0 / 5.0);
    }
}

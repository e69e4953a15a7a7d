//! Cosine of term-frequency vectors: Salton, Wong, Yang, *A Vector Space Model for Automatic Indexing*, 1975.
//!
//! Each text is a vector with one component per word, which is how often the word occurs. No embedding model is assumed.

use std::collections::HashMap;

use super::number;

pub(super) fn cosine(input: &[String], reference: &[String]) -> f64 {
    let (input, reference) = (frequencies(input), frequencies(reference));
    let dot: f64 = input
        .iter()
        .filter_map(|(word, count)| Some(count * reference.get(word)?))
        .sum();
    // One root of the product, so that equal vectors give 1 to the last bit.
    dot / (squared_length(&input) * squared_length(&reference)).sqrt()
}

fn frequencies(words: &[String]) -> HashMap<&str, f64> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(word, count)| (word, number(count)))
        .collect()
}

fn squared_length(vector: &HashMap<&str, f64>) -> f64 {
    vector.values().map(|count| count * count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::testing::{assert_near, split};

    #[test]
    fn the_angle_between_word_counts() {
        // (2, 1, 0) and (1, 1, 1): 3 / (√5 · √3).
        assert_near(
            cosine(&split("a a b"), &split("c b a")),
            3.0 / 15_f64.sqrt(),
        );
        // The order does not matter, nor the length of the vector.
        assert_near(cosine(&split("a b"), &split("b a b a")), 1.0);
        assert_near(cosine(&split("a"), &split("b")), 0.0);
    }
}

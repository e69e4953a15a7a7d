//! METEOR: Banerjee, Lavie, *METEOR: An Automatic Metric for MT Evaluation with Improved Correlation with Human
//! Judgments*, ACL 2005, with its first stage only: words match when they are equal. Stems and synonyms would need a
//! dictionary per language.

use std::collections::HashMap;

use super::number;

pub(super) fn meteor(input: &[String], reference: &[String]) -> f64 {
    let matched = align(input, reference);
    let n_matched = number(matched.iter().flatten().count());
    if n_matched == 0.0 {
        return 0.0;
    }
    let precision = n_matched / number(input.len());
    let recall = n_matched / number(reference.len());
    let mean = 10.0 * precision * recall / (recall + 9.0 * precision);
    let penalty = 0.5 * (number(chunks(&matched)) / n_matched).powi(3);
    mean * (1.0 - penalty)
}

/// For each word of the input the place of the word of the reference that it stands for. A word goes on with the run of
/// its predecessor where it can, and else takes the first place that is left: that keeps runs few without trying every
/// alignment.
fn align(input: &[String], reference: &[String]) -> Vec<Option<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, word) in reference.iter().enumerate() {
        places.entry(word).or_default().push(place);
    }
    let mut previous: Option<usize> = None;
    let mut next = |word: &String| {
        let free = places
            .get_mut(word.as_str())
            .filter(|free| !free.is_empty());
        let found = free.map(|free| {
            let onward = previous.and_then(|place| free.iter().position(|free| *free == place + 1));
            free.remove(onward.unwrap_or(0))
        });
        previous = found;
        found
    };
    input.iter().map(&mut next).collect()
}

/// Runs of words that stand next to each other on both sides.
fn chunks(matched: &[Option<usize>]) -> usize {
    let starts = |(index, place): (usize, &Option<usize>)| {
        let goes_on = index > 0
            && matches!((matched[index - 1], place), (Some(before), Some(place)) if before + 1 == *place);
        place.is_some() && !goes_on
    };
    matched
        .iter()
        .enumerate()
        .filter(|pair| starts(*pair))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::testing::{assert_near, split};

    #[test]
    fn matches_and_the_runs_they_come_in() {
        // 6 of 6 words in one chunk.
        let text = split("the cat sat on the mat");
        assert_near(meteor(&text, &text), 1.0 - 0.5 / 216.0);
        // The same words in three chunks ("on the mat", "sat", "the cat").
        let moved = split("on the mat sat the cat");
        assert_near(meteor(&moved, &text), 1.0 - 0.5 * (3.0_f64 / 6.0).powi(3));
        // P = 5/6, R = 5/6, two chunks of five words.
        let other = split("the cat is on the mat");
        assert_near(
            meteor(&other, &text),
            (5.0 / 6.0) * (1.0 - 0.5 * (2.0_f64 / 5.0).powi(3)),
        );
    }

    #[test]
    fn recall_counts_nine_times_as_much() {
        // P = 1, R = 1/2: 10 · ½ / (½ + 9), in one chunk of two.
        let found = meteor(&split("a b"), &split("a b c d"));
        assert_near(found, (5.0 / 9.5) * (1.0 - 0.5 / 8.0));
    }
}

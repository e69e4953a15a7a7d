//! Counts of runs of words.

use std::collections::HashMap;

/// Runs of words and how often each occurs.
pub(super) struct NGrams<'a>(HashMap<&'a [String], usize>);

impl<'a> NGrams<'a> {
    /// The runs of `n` words, `n` at least 1.
    pub(super) fn of(n: usize, words: &'a [String]) -> Self {
        let mut counts = HashMap::new();
        for run in words.windows(n) {
            *counts.entry(run).or_insert(0) += 1;
        }
        Self(counts)
    }

    /// How many there are.
    pub(super) fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// How many of them also the other has, each as often as it occurs in both.
    pub(super) fn in_common(&self, other: &Self) -> usize {
        let shared =
            |(run, count): (&&[String], &usize)| other.0.get(*run).map_or(0, |n| *n.min(count));
        self.0.iter().map(shared).sum()
    }
}

/// Length of a longest common subsequence.
pub(super) fn longest_common_subsequence<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    // One row of the table: `row[j]` is the length for what is read of `a` and the first `j` of `b`.
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y {
                diagonal + 1
            } else {
                above.max(row[j])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::testing::split;

    #[test]
    fn a_run_counts_as_often_as_it_occurs_in_both() {
        let (a, b) = (split("the the the cat"), split("the cat the dog"));
        let (a, b) = (NGrams::of(1, &a), NGrams::of(1, &b));
        assert_eq!((a.total(), a.in_common(&b), b.in_common(&a)), (4, 3, 3));
        let short = split("a");
        assert_eq!(NGrams::of(2, &short).total(), 0);
    }

    #[test]
    fn a_subsequence_keeps_the_order() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, length) in [
            ("abcbdab", "bdcaba", 4),
            ("abc", "abc", 3),
            ("abc", "cba", 1),
            ("", "a", 0),
        ] {
            assert_eq!(
                longest_common_subsequence(&chars(a), &chars(b)),
                length,
                "{a} {b}"
            );
        }
    }
}

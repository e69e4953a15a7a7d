//! ROUGE: Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, ACL 2004. The F1 of precision and recall, as
//! Google's `rouge_score` reports it; without its stemmer.

use super::ngrams::{NGrams, longest_common_subsequence};
use super::{f1, number};

/// Over runs of `n` words. A text of fewer words has none, so it is like nothing.
pub(super) fn rouge_n(n: usize, input: &[String], reference: &[String]) -> f64 {
    let (found, wanted) = (NGrams::of(n, input), NGrams::of(n, reference));
    shares(found.in_common(&wanted), found.total(), wanted.total())
}

/// Over a longest common subsequence of words.
pub(super) fn rouge_l(input: &[String], reference: &[String]) -> f64 {
    let length = longest_common_subsequence(input, reference);
    shares(length, input.len(), reference.len())
}

fn shares(in_common: usize, in_input: usize, in_reference: usize) -> f64 {
    if in_common == 0 {
        return 0.0;
    }
    f1(
        number(in_common) / number(in_input),
        number(in_common) / number(in_reference),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::testing::{assert_near, split};

    #[test]
    fn the_papers_own_examples() {
        // Section 3.1: with "police killed the gunman" both candidates have the same bigram; the subsequence tells them
        // apart, 3/4 against 2/4.
        let reference = split("police killed the gunman");
        let [near, far] = ["police kill the gunman", "the gunman kill police"].map(split);
        assert_near(rouge_n(2, &near, &reference), 1.0 / 3.0);
        assert_near(rouge_n(2, &far, &reference), 1.0 / 3.0);
        assert_near(rouge_l(&near, &reference), 0.75);
        assert_near(rouge_l(&far, &reference), 0.5);
    }

    #[test]
    fn precision_and_recall_both_count() {
        // 2 of 3 and 2 of 5: 2 · ⅔ · ⅖ / (⅔ + ⅖) = ½.
        assert_near(rouge_n(1, &split("a b x"), &split("a b c d e")), 0.5);
        assert_near(rouge_n(5, &split("a b c d e"), &split("a b c d e")), 1.0);
        assert_near(rouge_n(5, &split("a b c d"), &split("a b c d")), 0.0);
    }
}

//! BLEU: Papineni, Roukos, Ward, Zhu, *BLEU: a Method for Automatic Evaluation of Machine Translation*, ACL 2002.
//!
//! BLEU is made for a corpus; of a single sentence without a common run of four words it says 0. So counts of longer runs
//! are smoothed by one, as in Lin, Och, *ORANGE: a Method for Evaluating Automatic Evaluation Metrics*, COLING 2004.

use super::ngrams::NGrams;
use super::number;

const MAX_N: usize = 4;

pub(super) fn bleu(input: &[String], reference: &[String]) -> f64 {
    let mut log_sum = 0.0;
    for n in 1..=MAX_N {
        let (found, wanted) = (NGrams::of(n, input), NGrams::of(n, reference));
        let smoothing = if n == 1 { 0.0 } else { 1.0 };
        let precision =
            (number(found.in_common(&wanted)) + smoothing) / (number(found.total()) + smoothing);
        if precision == 0.0 {
            return 0.0;
        }
        log_sum += precision.ln() / number(MAX_N);
    }
    brevity_penalty(input.len(), reference.len()) * log_sum.exp()
}

/// What keeps a single sure word from being the best answer.
fn brevity_penalty(input: usize, reference: usize) -> f64 {
    if input >= reference {
        1.0
    } else {
        (1.0 - number(reference) / number(input)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::testing::{assert_near, split};

    #[test]
    fn precisions_of_one_to_four_words_and_a_penalty() {
        // 1-grams 5 of 6 ("sat" is missing), 2-grams 3 of 5, 3-grams 1 of 4, 4-grams 0 of 3, the last three plus one each.
        let found = bleu(
            &split("the cat is on the mat"),
            &split("the cat sat on the mat"),
        );
        let expected = ((5.0 / 6.0) * (4.0 / 6.0) * (2.0 / 5.0) * (1.0 / 4.0_f64)).powf(0.25);
        assert_near(found, expected);
        // Too short by half: exp(1 - 4/2).
        assert_near(bleu(&split("a b"), &split("a b c d")), (-1.0_f64).exp());
    }

    #[test]
    fn a_word_counts_no_more_often_than_in_the_reference() {
        // The paper's own example: 2 of 7.
        let found = bleu(
            &split("the the the the the the the"),
            &split("the cat is on the mat"),
        );
        let expected = ((2.0 / 7.0) * (1.0 / 7.0) * (1.0 / 6.0) * (1.0 / 5.0_f64)).powf(0.25);
        assert_near(found, expected);
    }

    #[test]
    fn a_sentence_is_like_itself_however_short() {
        for text in ["a", "a b", "a b c", "a b c d e"] {
            assert_near(bleu(&split(text), &split(text)), 1.0);
        }
    }
}

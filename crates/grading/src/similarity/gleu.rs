//! GLEU: Wu et al., *Google's Neural Machine Translation System*, 2016, section 4.3: over all runs of 1 to 4 words, the
//! smaller of precision and recall.

use super::ngrams::NGrams;
use super::number;

const MAX_N: usize = 4;

pub(super) fn gleu(input: &[String], reference: &[String]) -> f64 {
    let (mut in_common, mut in_input, mut in_reference) = (0, 0, 0);
    for n in 1..=MAX_N {
        let (found, wanted) = (NGrams::of(n, input), NGrams::of(n, reference));
        in_common += found.in_common(&wanted);
        in_input += found.total();
        in_reference += wanted.total();
    }
    // The smaller share is the one with the greater denominator.
    number(in_common) / number(in_input.max(in_reference))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::testing::{assert_near, split};

    #[test]
    fn all_runs_count_alike() {
        // 5 + 3 + 1 + 0 in common, of 6 + 5 + 4 + 3 on either side.
        assert_near(
            gleu(
                &split("the cat is on the mat"),
                &split("the cat sat on the mat"),
            ),
            0.5,
        );
        // "a b" has 3 runs, "a b c d" has 10; 3 are in common.
        assert_near(gleu(&split("a b"), &split("a b c d")), 0.3);
        assert_near(gleu(&split("a b c d"), &split("a b")), 0.3);
    }
}

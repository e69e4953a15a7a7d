//! `text_similarity`: how near two texts are, from 0 to 1.
//!
//! Each metric is a function of its own, defined by the paper it names. All but [`Metric::FuzzyMatch`] look at words as
//! [`words`] cuts them. Two texts without words are the same text: 1. One without words has nothing of the other: 0.

mod bleu;
mod cosine;
mod fuzzy;
mod gleu;
mod meteor;
mod ngrams;
mod rouge;
mod words;

use serde::{Deserialize, Serialize};

pub use words::words;

/// Characters of a text that is compared with [`Metric::FuzzyMatch`], whose time is the product of both lengths.
pub const MAX_FUZZY_CHARS: usize = 8_192;
/// Words of a text that is compared with [`Metric::RougeL`] or [`Metric::Meteor`], for the same reason.
pub const MAX_ALIGNED_WORDS: usize = 8_192;

/// A way to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The cosine of the angle between both texts' vectors of word counts. No embedding takes part.
    Cosine,
    /// The share of characters in a longest common subsequence.
    FuzzyMatch,
    /// BLEU of 1 to 4 words, smoothed for single sentences.
    Bleu,
    /// GLEU of 1 to 4 words.
    Gleu,
    /// METEOR over equal words.
    Meteor,
    /// ROUGE-1, as F1.
    #[serde(rename = "rouge_1")]
    Rouge1,
    /// ROUGE-2, as F1.
    #[serde(rename = "rouge_2")]
    Rouge2,
    /// ROUGE-3, as F1.
    #[serde(rename = "rouge_3")]
    Rouge3,
    /// ROUGE-4, as F1.
    #[serde(rename = "rouge_4")]
    Rouge4,
    /// ROUGE-5, as F1.
    #[serde(rename = "rouge_5")]
    Rouge5,
    /// ROUGE-L, as F1.
    RougeL,
}

/// Texts that would take too long to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {which} has {length} {unit}; this metric compares at most {max}")]
pub struct TooLong {
    which: &'static str,
    length: usize,
    unit: &'static str,
    max: usize,
}

/// How near `input` is to `reference`.
///
/// # Errors
/// [`TooLong`], before anything is compared whose time is the product of both lengths.
pub fn similarity(metric: Metric, input: &str, reference: &str) -> Result<f64, TooLong> {
    if metric == Metric::FuzzyMatch {
        let (input, reference): (Vec<char>, Vec<char>) =
            (input.chars().collect(), reference.chars().collect());
        bounded(input.len(), reference.len(), "characters", MAX_FUZZY_CHARS)?;
        return Ok(fuzzy::ratio(&input, &reference));
    }
    let (input, reference) = (words(input), words(reference));
    if matches!(metric, Metric::RougeL | Metric::Meteor) {
        bounded(input.len(), reference.len(), "words", MAX_ALIGNED_WORDS)?;
    }
    if input.is_empty() || reference.is_empty() {
        return Ok(f64::from(u8::from(
            input.is_empty() && reference.is_empty(),
        )));
    }
    Ok(match metric {
        Metric::Cosine => cosine::cosine(&input, &reference),
        Metric::Bleu => bleu::bleu(&input, &reference),
        Metric::Gleu => gleu::gleu(&input, &reference),
        Metric::Meteor => meteor::meteor(&input, &reference),
        Metric::Rouge1 => rouge::rouge_n(1, &input, &reference),
        Metric::Rouge2 => rouge::rouge_n(2, &input, &reference),
        Metric::Rouge3 => rouge::rouge_n(3, &input, &reference),
        Metric::Rouge4 => rouge::rouge_n(4, &input, &reference),
        Metric::Rouge5 => rouge::rouge_n(5, &input, &reference),
        Metric::RougeL => rouge::rouge_l(&input, &reference),
        Metric::FuzzyMatch => unreachable!("answered above, over characters"),
    })
}

fn bounded(input: usize, reference: usize, unit: &'static str, max: usize) -> Result<(), TooLong> {
    for (which, length) in [("input", input), ("reference", reference)] {
        if length > max {
            return Err(TooLong {
                which,
                length,
                unit,
                max,
            });
        }
    }
    Ok(())
}

/// A count as a number to calculate with: texts are far shorter than 2⁵³ words.
#[expect(clippy::cast_precision_loss, reason = "exact below 2⁵³")]
fn number(count: usize) -> f64 {
    count as f64
}

/// The harmonic mean of two shares; 0 if both are.
fn f1(precision: f64, recall: f64) -> f64 {
    if precision + recall == 0.0 {
        0.0
    } else {
        2.0 * precision * recall / (precision + recall)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// Words of a text that is split at spaces.
    pub(crate) fn split(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Metric; 11] = [
        Metric::Cosine,
        Metric::FuzzyMatch,
        Metric::Bleu,
        Metric::Gleu,
        Metric::Meteor,
        Metric::Rouge1,
        Metric::Rouge2,
        Metric::Rouge3,
        Metric::Rouge4,
        Metric::Rouge5,
        Metric::RougeL,
    ];

    #[test]
    fn nothing_is_like_nothing_and_unlike_something() {
        for metric in ALL {
            assert_eq!(similarity(metric, "", ""), Ok(1.0), "{metric:?}");
            assert_eq!(similarity(metric, "", "word"), Ok(0.0), "{metric:?}");
            assert_eq!(similarity(metric, "word", ""), Ok(0.0), "{metric:?}");
            assert_eq!(similarity(metric, "xyz", "abc"), Ok(0.0), "{metric:?}");
        }
    }

    #[test]
    fn the_names_are_openais() {
        let names: Vec<_> = ALL
            .iter()
            .map(|metric| serde_json::to_value(metric).unwrap())
            .collect();
        let expected = [
            "cosine",
            "fuzzy_match",
            "bleu",
            "gleu",
            "meteor",
            "rouge_1",
            "rouge_2",
            "rouge_3",
            "rouge_4",
            "rouge_5",
            "rouge_l",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_would_take_too_long_is_refused_with_the_bound() {
        let long = "a ".repeat(MAX_ALIGNED_WORDS + 1);
        for metric in [Metric::RougeL, Metric::Meteor, Metric::FuzzyMatch] {
            let error = similarity(metric, "a", &long).unwrap_err().to_string();
            assert!(error.contains("at most 8192"), "{error}");
        }
        assert!(similarity(Metric::Bleu, "a", &long).is_ok());
    }

    proptest! {
        #[test]
        fn every_metric_is_a_share_and_a_text_is_like_itself(a in "[a-d ,日本]{0,40}", b in "[a-d ,日本]{0,40}") {
            for metric in ALL {
                let found = similarity(metric, &a, &b).unwrap();
                prop_assert!((0.0..=1.0 + 1e-12).contains(&found), "{metric:?} {found}");
                // METEOR's penalty for a single chunk stays; ROUGE-N has no n-gram in a shorter text.
                if matches!(metric, Metric::Cosine | Metric::FuzzyMatch | Metric::Bleu | Metric::Gleu | Metric::RougeL) {
                    prop_assert!((similarity(metric, &a, &a).unwrap() - 1.0).abs() < 1e-9, "{metric:?}");
                }
            }
        }
    }
}

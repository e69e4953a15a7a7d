//! From scores to a token: greedy or drawn, with OpenAI's knobs.
//!
//! A draw is a function of the seed and the number of tokens drawn before, nothing else: the same
//! request with the same seed gives the same text.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::rng::{splitmix64, unit_f64};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// 0 is greedy.
    pub temperature: f64,
    /// Draw from the likeliest tokens that together reach this probability.
    pub top_p: f64,
    pub seed: u64,
    /// Subtracted from a token's score once for each time it was generated.
    pub frequency_penalty: f64,
    /// Subtracted from the score of every token that was generated.
    pub presence_penalty: f64,
    /// Added to the scores of single tokens.
    pub logit_bias: HashMap<u32, f64>,
    /// How many alternatives to report beside the token chosen; `None` reports nothing.
    pub top_logprobs: Option<usize>,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            seed: 0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: HashMap::new(),
            top_logprobs: None,
        }
    }
}

/// A token chosen, with what was asked to be reported of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    pub id: u32,
    pub logprobs: Option<Logprobs>,
}

/// Log-probabilities under the scores as penalised and biased, before temperature and `top_p`.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// Of the token chosen.
    pub chosen: f64,
    /// The likeliest tokens, best first.
    pub top: Vec<(u32, f64)>,
}

/// Chooses the tokens of one answer.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplingConfig,
    /// How often each token was generated.
    counts: HashMap<u32, u32>,
    n_drawn: u64,
}

impl Sampler {
    pub fn new(config: SamplingConfig) -> Self {
        Self {
            config,
            counts: HashMap::new(),
            n_drawn: 0,
        }
    }

    /// Chooses a token by its score and remembers it for the penalties.
    ///
    /// # Panics
    /// When `logits` is empty.
    pub fn sample(&mut self, mut logits: Vec<f32>) -> Sampled {
        assert!(!logits.is_empty(), "a vocabulary has tokens");
        self.adjust(&mut logits);
        let id = if self.config.temperature > 0.0 {
            self.draw(&logits)
        } else {
            argmax(&logits)
        };
        let logprobs = self.config.top_logprobs.map(|n| logprobs(&logits, id, n));
        *self.counts.entry(id).or_default() += 1;
        self.n_drawn += 1;
        Sampled { id, logprobs }
    }

    #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
    fn adjust(&self, logits: &mut [f32]) {
        let SamplingConfig {
            frequency_penalty,
            presence_penalty,
            ..
        } = self.config;
        for (id, count) in &self.counts {
            let penalty = frequency_penalty * f64::from(*count) + presence_penalty;
            logits[*id as usize] -= penalty as f32;
        }
        for (id, bias) in &self.config.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += *bias as f32;
            }
        }
    }

    fn draw(&self, logits: &[f32]) -> u32 {
        let temperature = self.config.temperature;
        let max = f64::from(logits[argmax(logits) as usize]);
        let weights: Vec<f64> = logits
            .iter()
            .map(|logit| ((f64::from(*logit) - max) / temperature).exp())
            .collect();
        let random = unit_f64(splitmix64(splitmix64(self.config.seed) ^ self.n_drawn));
        if self.config.top_p < 1.0 {
            draw_nucleus(&weights, self.config.top_p, random)
        } else {
            draw_from(
                (0..).zip(&weights).map(|(id, weight)| (id, *weight)),
                random,
            )
        }
    }
}

/// Draws from the fewest likeliest tokens that reach `top_p` of all weight.
fn draw_nucleus(weights: &[f64], top_p: f64, random: f64) -> u32 {
    let total: f64 = weights.iter().sum();
    // Tokens below this can be left out of the sort without missing the nucleus: together they
    // weigh less than what it leaves over. It shortens the list from the vocabulary to a few.
    #[expect(clippy::cast_precision_loss, reason = "vocabularies are small")]
    let negligible = total * (1.0 - top_p) / weights.len() as f64;
    let mut candidates: Vec<(u32, f64)> = (0..)
        .zip(weights.iter().copied())
        .filter(|(_, weight)| *weight >= negligible)
        .collect();
    candidates.sort_by(best_first);
    let mut reached = 0.0;
    let n_kept = candidates
        .iter()
        .take_while(|(_, weight)| {
            let wanted = reached < top_p * total;
            reached += weight;
            wanted
        })
        .count();
    candidates.truncate(n_kept.max(1));
    draw_from(candidates.iter().copied(), random)
}

fn draw_from(candidates: impl Iterator<Item = (u32, f64)> + Clone, random: f64) -> u32 {
    let total: f64 = candidates.clone().map(|(_, weight)| weight).sum();
    let mut left = random * total;
    let mut last = 0;
    for (id, weight) in candidates.filter(|(_, weight)| *weight > 0.0) {
        last = id;
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    // Rounding may leave a little over; it belongs to the last token that can be drawn.
    last
}

/// By weight, equal weights by id, so that the order never depends on the sort.
fn best_first(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    u32::try_from(best).expect("token ids are 32 bits")
}

fn logprobs(logits: &[f32], chosen: u32, n_top: usize) -> Logprobs {
    let max = f64::from(logits[argmax(logits) as usize]);
    let sum: f64 = logits
        .iter()
        .map(|logit| (f64::from(*logit) - max).exp())
        .sum();
    let normaliser = max + sum.ln();
    let of = |logit: f32| f64::from(logit) - normaliser;
    let mut all: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|logit| of(*logit))).collect();
    let n_top = n_top.min(all.len());
    if n_top > 0 {
        all.select_nth_unstable_by(n_top - 1, best_first);
    }
    all.truncate(n_top);
    all.sort_by(best_first);
    Logprobs {
        chosen: of(logits[chosen as usize]),
        top: all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, -1.0];

    fn draw_many(config: &SamplingConfig, n: usize) -> [usize; 4] {
        let mut counts = [0; 4];
        let mut sampler = Sampler::new(config.clone());
        for _ in 0..n {
            counts[sampler.sample(LOGITS.to_vec()).id as usize] += 1;
        }
        counts
    }

    #[test]
    fn temperature_zero_takes_the_best() {
        let config = SamplingConfig {
            temperature: 0.0,
            ..SamplingConfig::default()
        };
        assert_eq!(draw_many(&config, 10), [0, 10, 0, 0]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let counts = draw_many(&SamplingConfig::default(), 20_000);
        let total: f32 = LOGITS.iter().map(|logit| logit.exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            let expected = 20_000.0 * f64::from(logit.exp() / total);
            assert!((f64::from(u32::try_from(*count).unwrap()) - expected).abs() < 300.0);
        }
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let sequence = |seed| {
            let mut sampler = Sampler::new(SamplingConfig {
                seed,
                ..SamplingConfig::default()
            });
            (0..50)
                .map(|_| sampler.sample(LOGITS.to_vec()).id)
                .collect::<Vec<_>>()
        };
        assert_eq!(sequence(5), sequence(5));
        assert_ne!(sequence(5), sequence(6));
    }

    #[test]
    fn top_p_leaves_the_unlikely_out() {
        // The best token has 66 %, the best two 91 %.
        let config = SamplingConfig {
            top_p: 0.6,
            ..SamplingConfig::default()
        };
        assert_eq!(draw_many(&config, 100), [0, 100, 0, 0]);
        let config = SamplingConfig {
            top_p: 0.8,
            ..SamplingConfig::default()
        };
        let counts = draw_many(&config, 1000);
        assert!(
            counts[0] == 0 && counts[3] == 0 && counts[2] > 100,
            "{counts:?}"
        );
        let config = SamplingConfig {
            top_p: 0.0,
            ..SamplingConfig::default()
        };
        assert_eq!(draw_many(&config, 100), [0, 100, 0, 0]);
    }

    #[test]
    fn penalties_and_bias_move_the_choice() {
        let greedy = SamplingConfig {
            temperature: 0.0,
            ..SamplingConfig::default()
        };
        let mut sampler = Sampler::new(SamplingConfig {
            presence_penalty: 1.5,
            ..greedy.clone()
        });
        let ids: Vec<_> = (0..3).map(|_| sampler.sample(LOGITS.to_vec()).id).collect();
        assert_eq!(ids, [1, 2, 1]);
        let logit_bias = HashMap::from([(3, 100.0), (99, 5.0)]);
        let mut sampler = Sampler::new(SamplingConfig {
            logit_bias,
            ..greedy
        });
        assert_eq!(sampler.sample(LOGITS.to_vec()).id, 3);
    }

    #[test]
    fn logprobs_name_the_best_in_order() {
        let config = SamplingConfig {
            top_logprobs: Some(2),
            ..SamplingConfig::default()
        };
        let sampled = Sampler::new(config).sample(LOGITS.to_vec());
        let logprobs = sampled.logprobs.unwrap();
        assert_eq!(
            logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [1, 2]
        );
        let total: f64 = LOGITS.iter().map(|logit| f64::from(*logit).exp()).sum();
        assert!((logprobs.top[0].1 - (3.0 - total.ln())).abs() < 1e-6);
    }
}

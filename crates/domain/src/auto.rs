//! What `auto` means: one written policy, applied once, when a job is made. The result is stored and shown.
//!
//! | setting | policy |
//! |---|---|
//! | `n_epochs` | 3 below 250,000 tokens, 2 below 2.5 million, otherwise 1 |
//! | `batch_size` | 4 below 2,000 rows, 8 below 20,000, otherwise 16 |
//! | `lora.rank` | 8 below 1 million tokens, 16 below 10 million, otherwise 32 |
//! | `learning_rate` | by method, what learns and the model's size, see [`learning_rate`] |
//! | `max_seq_len` | the model's context, at most 2,048 |
//! | `checkpoint_every` | once an epoch |
//! | `warmup_steps` | 3 % of the steps, at most 100 |
//! | the rest | the field's customary values, see [`Hyperparameters::resolve`] |
//!
//! Tokens are those of one epoch, taken as a quarter of the file's bytes.

use crate::config::{
    Care, Hyperparameters, Keep, LoraConfig, LrSchedule, Method, MethodKind, Numbers, Precision,
    Quantization, TargetModule, TrainingConfig, Tuning, TuningKind,
};

/// What the policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Rows of the training file.
    pub n_rows: u64,
    /// Its size. Tokens are not known before a worker has read the file; a token is about four bytes.
    pub n_bytes: u64,
    /// Parameters of the base model.
    pub n_params: u64,
    /// Tokens the base model can take in.
    pub context_length: u64,
    /// Drawn by the caller, used if the client chose none.
    pub fallback_seed: u64,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            n_rows: 100,
            n_bytes: 100_000,
            n_params: 135_000_000,
            context_length: 2048,
            fallback_seed: 0,
        }
    }
}

/// Tokens that a run goes over, as far as can be told before a worker has counted them.
pub fn estimated_tokens(config: &TrainingConfig, n_rows: u64, n_bytes: u64) -> u64 {
    let steps_per_epoch = u128::from(config.steps_per_epoch(n_rows).max(1));
    let per_epoch = u128::from(n_bytes / BYTES_PER_TOKEN);
    let tokens = per_epoch * u128::from(config.total_steps(n_rows)) / steps_per_epoch;
    u64::try_from(tokens).unwrap_or(u64::MAX)
}

/// Bytes of a dataset file that make about one token.
const BYTES_PER_TOKEN: u64 = 4;
/// A tenth more is about what a run of a few epochs costs that forgets nothing of note.
const MAX_PERPLEXITY_INCREASE: f64 = 0.1;

impl Hyperparameters {
    /// Decides every setting that was left open.
    pub fn resolve(&self, facts: &Facts) -> TrainingConfig {
        let n_tokens = facts.n_bytes / BYTES_PER_TOKEN;
        let (method, tuning) = (self.resolve_method(), self.resolve_tuning(n_tokens));
        let mut config = TrainingConfig {
            n_epochs: self.n_epochs.unwrap_or_else(|| n_epochs(n_tokens)),
            max_steps: self.max_steps,
            device: self.device,
            batch_size: self.batch_size.unwrap_or_else(|| batch_size(facts.n_rows)),
            precision: self.resolve_precision(),
            checkpoint_every: 0,
            learning_rate: self.learning_rate.unwrap_or_else(|| {
                learning_rate(method.kind(), tuning.kind(), facts.n_params)
                    * self.learning_rate_multiplier.unwrap_or(1.0)
            }),
            lr_schedule: self.lr_schedule.unwrap_or(LrSchedule::Linear),
            warmup_steps: 0,
            weight_decay: self.weight_decay.unwrap_or(0.0),
            adam_beta1: self.adam_beta1.unwrap_or(0.9),
            adam_beta2: self.adam_beta2.unwrap_or(0.999),
            adam_eps: self.adam_eps.unwrap_or(1e-8),
            max_grad_norm: self.max_grad_norm.unwrap_or(1.0),
            grad_accum: self.grad_accum.unwrap_or(1),
            max_seq_len: self.max_seq_len.unwrap_or(2048).min(facts.context_length),
            packing: self.packing.unwrap_or(true),
            shuffle: self.shuffle.unwrap_or(true),
            seed: self.seed.unwrap_or(facts.fallback_seed),
            method,
            tuning,
            quantization: self.quantization.unwrap_or_default(),
            recompute: self.recompute.unwrap_or(false),
            care: self.resolve_care(),
        };
        let total_steps = config.total_steps(facts.n_rows);
        let steps_per_epoch = config.steps_per_epoch(facts.n_rows).max(1);
        config.checkpoint_every = self.checkpoint_every.unwrap_or(steps_per_epoch);
        config.warmup_steps = self
            .warmup_steps
            .unwrap_or_else(|| (total_steps * 3 / 100).min(100));
        config
    }

    /// A quantised base is multiplied in bf16 where the machine can.
    fn resolve_precision(&self) -> Precision {
        let is_quantised = self.quantization.unwrap_or_default() != Quantization::None;
        let usual = if is_quantised {
            Precision::Bf16
        } else {
            Precision::F32
        };
        self.precision.unwrap_or(usual)
    }

    fn resolve_method(&self) -> Method {
        let numbers = Numbers {
            beta: self.beta,
            gamma: self.gamma,
            desirable_weight: self.desirable_weight,
            undesirable_weight: self.undesirable_weight,
        };
        Method::new(self.method.unwrap_or_default(), &numbers)
    }

    fn resolve_tuning(&self, n_tokens: u64) -> Tuning {
        match self.tuning.unwrap_or_default() {
            TuningKind::Lora => Tuning::Lora(self.resolve_lora(n_tokens)),
            TuningKind::Full => Tuning::Full {
                train_embeddings: self.train_embeddings.unwrap_or(false),
            },
        }
    }

    fn resolve_care(&self) -> Care {
        Care {
            replay: self.replay.clone(),
            kl_weight: self.kl_weight.unwrap_or(0.0),
            keep: self.keep.unwrap_or(Keep::Best),
            early_stopping: self.early_stopping,
            max_perplexity_increase: Some(
                self.max_perplexity_increase
                    .unwrap_or(MAX_PERPLEXITY_INCREASE),
            ),
        }
    }

    fn resolve_lora(&self, n_tokens: u64) -> LoraConfig {
        let rank = self.lora_rank.unwrap_or_else(|| rank(n_tokens));
        LoraConfig {
            rank: usize::try_from(rank).expect("at most 256"),
            alpha: self
                .lora_alpha
                .unwrap_or_else(|| 2.0 * f64::from(u16::try_from(rank).expect("at most 256"))),
            use_rslora: self.lora_use_rslora.unwrap_or(false),
            use_dora: self.lora_use_dora.unwrap_or(false),
            dropout: self.lora_dropout.unwrap_or(0.0),
            target_modules: self
                .lora_target_modules
                .clone()
                .unwrap_or_else(|| TargetModule::ALL.to_vec()),
        }
    }
}

/// Little text is shown more often, or there would be too few steps to learn it.
fn n_epochs(n_tokens: u64) -> u64 {
    match n_tokens {
        0..250_000 => 3,
        250_000..2_500_000 => 2,
        _ => 1,
    }
}

fn batch_size(n_rows: u64) -> u64 {
    match n_rows {
        0..2_000 => 4,
        2_000..20_000 => 8,
        _ => 16,
    }
}

/// An adapter holds about two bits a parameter, and text to be learned about one a token (Schulman et al. 2025, "LoRA
/// Without Regret"); the smallest rank here would do for most data, so it grows slowly.
fn rank(n_tokens: u64) -> u64 {
    match n_tokens {
        0..1_000_000 => 8,
        1_000_000..10_000_000 => 16,
        _ => 32,
    }
}

/// The rate after warmup. An adapter wants about ten times the rate of full fine-tuning (Schulman et al. 2025), a small
/// model more than a large one, and preferences less than text: their losses go on falling long after the answers are
/// any better.
///
/// | | adapter, below 1 B | adapter | every weight, below 1 B | every weight |
/// |---|---|---|---|---|
/// | `supervised` | 1e-3 | 2e-4 | 1e-4 | 2e-5 |
/// | `orpo` | 2e-4 | 4e-5 | 2e-5 | 4e-6 |
/// | the other methods | 5e-5 | 1e-5 | 5e-6 | 1e-6 |
pub fn learning_rate(method: MethodKind, tuning: TuningKind, n_params: u64) -> f64 {
    let for_text = if n_params < 1_000_000_000 { 1e-3 } else { 2e-4 };
    let divisor = match method {
        MethodKind::Supervised => 1.0,
        MethodKind::Orpo => 5.0,
        MethodKind::Dpo | MethodKind::Ipo | MethodKind::SimPo | MethodKind::Kto => 20.0,
    };
    match tuning {
        TuningKind::Lora => for_text / divisor,
        TuningKind::Full => for_text / divisor / 10.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_kept() {
        let asked = Hyperparameters {
            n_epochs: Some(7),
            learning_rate: Some(3e-5),
            checkpoint_every: Some(2),
            warmup_steps: Some(0),
            seed: Some(9),
            ..Hyperparameters::default()
        };
        let config = asked.resolve(&Facts::default());
        assert_eq!(
            (config.n_epochs, config.checkpoint_every, config.seed),
            (7, 2, 9)
        );
        assert_eq!((config.learning_rate, config.warmup_steps), (3e-5, 0));
    }

    #[test]
    fn a_multiplier_scales_the_policys_rate() {
        let asked = Hyperparameters {
            learning_rate_multiplier: Some(0.5),
            ..Hyperparameters::default()
        };
        assert!((asked.resolve(&Facts::default()).learning_rate - 5e-4).abs() < 1e-12);
    }

    #[test]
    fn a_row_never_outgrows_the_models_context() {
        let facts = Facts {
            context_length: 512,
            ..Facts::default()
        };
        let asked = Hyperparameters {
            max_seq_len: Some(4096),
            ..Hyperparameters::default()
        };
        assert_eq!(asked.resolve(&facts).max_seq_len, 512);
    }

    #[test]
    fn checkpoints_come_once_an_epoch_unless_asked() {
        let facts = Facts {
            n_rows: 240,
            ..Facts::default()
        };
        let asked = Hyperparameters {
            n_epochs: Some(2),
            ..Hyperparameters::default()
        };
        assert_eq!(asked.resolve(&facts).checkpoint_every, 60);
    }

    #[test]
    fn the_rate_follows_method_size_and_what_learns() {
        let rate = |asked: &serde_json::Value, n_params| {
            let facts = Facts {
                n_params,
                ..Facts::default()
            };
            let asked = Hyperparameters::parse("", asked).unwrap();
            asked.resolve(&facts).learning_rate
        };
        for (asked, small, large) in [
            (serde_json::json!({}), 1e-3, 2e-4),
            (serde_json::json!({"tuning": "full"}), 1e-4, 2e-5),
            (serde_json::json!({"method": "orpo"}), 2e-4, 4e-5),
            (serde_json::json!({"method": "dpo"}), 5e-5, 1e-5),
            (
                serde_json::json!({"method": "kto", "tuning": "full"}),
                5e-6,
                1e-6,
            ),
        ] {
            assert!(
                (rate(&asked, 135_000_000) / small - 1.0).abs() < 1e-9,
                "{asked}"
            );
            assert!(
                (rate(&asked, 8_000_000_000) / large - 1.0).abs() < 1e-9,
                "{asked}"
            );
        }
    }

    #[test]
    fn more_data_is_seen_less_often_and_gets_a_higher_rank() {
        let chosen = |n_bytes| {
            let facts = Facts {
                n_bytes,
                ..Facts::default()
            };
            let config = Hyperparameters::default().resolve(&facts);
            let lora = config.lora().unwrap();
            (config.n_epochs, lora.rank, lora.alpha)
        };
        assert_eq!(chosen(100_000), (3, 8, 16.0));
        assert_eq!(chosen(6_000_000), (2, 16, 32.0));
        assert_eq!(chosen(100_000_000), (1, 32, 64.0));
    }

    #[test]
    fn replayed_rows_lengthen_the_epoch() {
        let asked = serde_json::json!({
            "n_epochs": 1, "batch_size": 4, "replay": {"ratio": 0.5},
        });
        let config = Hyperparameters::parse("", &asked)
            .unwrap()
            .resolve(&Facts::default());
        assert_eq!(config.total_steps(100), 50);
        assert_eq!(config.checkpoint_every, 50);
    }

    #[test]
    fn a_run_is_expected_to_take_its_files_tokens_once_an_epoch_or_fewer_steps_of_them() {
        let config = |asked| {
            Hyperparameters::parse("", &asked)
                .unwrap()
                .resolve(&Facts::default())
        };
        let whole = config(serde_json::json!({"n_epochs": 3, "batch_size": 10}));
        assert_eq!(estimated_tokens(&whole, 100, 4_000), 3_000);
        let part = config(serde_json::json!({"n_epochs": 3, "batch_size": 10, "max_steps": 5}));
        assert_eq!(estimated_tokens(&part, 100, 4_000), 500);
        assert_eq!(estimated_tokens(&part, 0, 0), 0);
    }
}

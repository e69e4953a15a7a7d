//! What `auto` means: one written policy, applied once, when a job is made. The result is stored and shown.
//!
//! | setting | policy |
//! |---|---|
//! | `n_epochs` | 3 below 500 rows, 2 below 5,000, otherwise 1 |
//! | `batch_size` | 4 below 2,000 rows, 8 below 20,000, otherwise 16 |
//! | `learning_rate` | 1e-3 below 1 B parameters, 2e-4 otherwise, times `learning_rate_multiplier` |
//! | `max_seq_len` | the model's context, at most 2,048 |
//! | `checkpoint_every` | once an epoch |
//! | `warmup_steps` | 3 % of the steps, at most 100 |
//! | the rest | the field's customary values, see [`Hyperparameters::resolve`] |

use crate::config::{
    Hyperparameters, LoraConfig, LrSchedule, Precision, TargetModule, TrainingConfig,
};

/// What the policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Rows of the training file.
    pub n_rows: u64,
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
            n_params: 135_000_000,
            context_length: 2048,
            fallback_seed: 0,
        }
    }
}

impl Hyperparameters {
    /// Decides every setting that was left open.
    pub fn resolve(&self, facts: &Facts) -> TrainingConfig {
        let mut config = TrainingConfig {
            n_epochs: self.n_epochs.unwrap_or_else(|| n_epochs(facts.n_rows)),
            max_steps: self.max_steps,
            batch_size: self.batch_size.unwrap_or_else(|| batch_size(facts.n_rows)),
            precision: self.precision.unwrap_or(Precision::F32),
            checkpoint_every: 0,
            learning_rate: self.learning_rate.unwrap_or_else(|| {
                learning_rate(facts.n_params) * self.learning_rate_multiplier.unwrap_or(1.0)
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
            lora: self.resolve_lora(),
        };
        let total_steps = config.total_steps(facts.n_rows);
        let steps_per_epoch = facts
            .n_rows
            .div_ceil(config.batch_size * config.grad_accum)
            .max(1);
        config.checkpoint_every = self.checkpoint_every.unwrap_or(steps_per_epoch);
        config.warmup_steps = self
            .warmup_steps
            .unwrap_or_else(|| (total_steps * 3 / 100).min(100));
        config
    }

    fn resolve_lora(&self) -> LoraConfig {
        let rank = self.lora_rank.unwrap_or(8);
        LoraConfig {
            rank: usize::try_from(rank).expect("at most 256"),
            alpha: self
                .lora_alpha
                .unwrap_or_else(|| 2.0 * f64::from(u16::try_from(rank).expect("at most 256"))),
            use_rslora: self.lora_use_rslora.unwrap_or(false),
            dropout: self.lora_dropout.unwrap_or(0.0),
            target_modules: self
                .lora_target_modules
                .clone()
                .unwrap_or_else(|| TargetModule::ALL.to_vec()),
        }
    }
}

fn n_epochs(n_rows: u64) -> u64 {
    match n_rows {
        0..500 => 3,
        500..5_000 => 2,
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

/// An adapter wants about ten times the rate of full fine-tuning, and a small model more than a large one.
fn learning_rate(n_params: u64) -> f64 {
    if n_params < 1_000_000_000 { 1e-3 } else { 2e-4 }
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
}

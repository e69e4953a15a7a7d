//! A run that needs more memory than there is.

use std::fmt;

use domain::TrainingConfig;
use domain::config::{Quantization, Tuning};
use domain::cost::{BatchShape, Memory};

use super::words::bytes;
use crate::memory::Room;
use crate::train::TrainError;

/// The numbers of a run that does not fit, and the ways out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What it needs.
    pub memory: Memory,
    /// What the process may hold in all.
    pub limit_bytes: u64,
    /// The micro-batch that needs the most.
    pub fullest: BatchShape,
    /// Settings that would bring it down, as they are.
    pub ways_out: Vec<String>,
}

/// Whether the run's fullest moment fits into what is left.
pub(super) fn check(
    memory: &Memory,
    room: Room,
    fullest: &BatchShape,
    config: &TrainingConfig,
) -> Result<(), TrainError> {
    let (Some(free), Some(limit_bytes)) = (room.free_bytes, room.limit_bytes()) else {
        return Ok(());
    };
    if memory.to_come() <= free {
        return Ok(());
    }
    let ways = ways_with_batches(config).chain(ways_with_weights(config));
    Err(misfit(memory, limit_bytes, fullest, ways))
}

/// Whether a process that has loaded nothing yet may come to hold all of it.
pub(super) fn check_all(
    memory: &Memory,
    room: Room,
    config: &TrainingConfig,
) -> Result<(), TrainError> {
    match room.limit_bytes() {
        Some(limit) if memory.total() > limit => {
            let ways = ways_with_weights(config);
            Err(misfit(memory, limit, &BatchShape::default(), ways))
        }
        _ => Ok(()),
    }
}

fn misfit(
    memory: &Memory,
    limit_bytes: u64,
    fullest: &BatchShape,
    ways: impl Iterator<Item = String>,
) -> TrainError {
    let mut ways_out: Vec<String> = ways.collect();
    if ways_out.is_empty() {
        ways_out.push("give it more".to_owned());
    }
    TrainError::DoesNotFit(Box::new(Misfit {
        memory: *memory,
        limit_bytes,
        fullest: fullest.clone(),
        ways_out,
    }))
}

/// What makes a step's batches take less.
fn ways_with_batches(config: &TrainingConfig) -> impl Iterator<Item = String> {
    let batch =
        (config.batch_size > 1).then(|| format!("lower `batch_size` ({})", config.batch_size));
    let length = Some(format!("lower `max_seq_len` ({})", config.max_seq_len));
    let recompute = (!config.recompute).then(|| "set `recompute`".to_owned());
    [batch, length, recompute].into_iter().flatten()
}

/// What makes the weights take less.
fn ways_with_weights(config: &TrainingConfig) -> impl Iterator<Item = String> {
    let way = match config.tuning {
        Tuning::Full { .. } => Some("learn an adapter (`tuning`: `lora`)"),
        Tuning::Lora(_) if config.quantization == Quantization::None => {
            Some("keep the base in 4 bits (`quantization`: `nf4`)")
        }
        Tuning::Lora(_) => None,
    };
    way.map(str::to_owned).into_iter()
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = &self.memory;
        // Before the base is loaded no row was looked at.
        let rows = if self.fullest.rows.is_empty() {
            String::new()
        } else {
            format!(
                " {} for the activations of its largest micro-batch ({} rows, {} tokens), {} for work on it,",
                bytes(memory.activation_bytes),
                self.fullest.rows.len(),
                self.fullest.n_tokens(),
                bytes(memory.work_bytes),
            )
        };
        write!(
            formatter,
            "the run would need {} {} of memory and may take {}: {} for the base model, {} for what learns and its \
             optimizer,{rows} {} for the process; {}",
            if rows.is_empty() { "at least" } else { "about" },
            bytes(memory.total()),
            bytes(self.limit_bytes),
            bytes(memory.base_bytes),
            bytes(memory.learned_bytes),
            bytes(memory.process_bytes),
            self.ways_out.join(", or "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(activation_bytes: u64) -> Memory {
        Memory {
            process_bytes: 100_000_000,
            base_bytes: 500_000_000,
            activation_bytes,
            ..Memory::default()
        }
    }

    fn check_of(activation_bytes: u64, free_bytes: Option<u64>) -> Result<(), TrainError> {
        let room = Room {
            held_bytes: Some(600_000_000),
            free_bytes,
            max_bytes: None,
        };
        let fullest = BatchShape {
            rows: vec![900, 100],
            n_supervised: 10,
        };
        let memory = needed(activation_bytes);
        check(&memory, room, &fullest, &TrainingConfig::default())
    }

    #[test]
    fn what_is_held_already_needs_no_room() {
        check_of(400_000_000, Some(400_000_000)).unwrap();
        check_of(u64::MAX / 2, None).unwrap();
    }

    #[test]
    fn a_refusal_names_the_numbers_and_the_ways_out() {
        let error = check_of(2_000_000_000, Some(400_000_000)).unwrap_err();
        let said = error.to_string();
        for part in [
            "about 2.6 GB of memory and may take 1.0 GB",
            "500 MB for the base model",
            "2.0 GB for the activations",
            "(2 rows, 1000 tokens)",
            "lower `batch_size`",
            "or lower `max_seq_len`",
            "or set `recompute`",
            "`quantization`: `nf4`",
        ] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
    }

    #[test]
    fn a_base_that_is_too_large_is_refused_before_it_is_loaded() {
        let config = TrainingConfig::default();
        let room = |bytes| Room {
            held_bytes: Some(100_000_000),
            free_bytes: Some(bytes),
            max_bytes: None,
        };
        check_all(&needed(0), room(500_000_000), &config).unwrap();
        let error = check_all(&needed(0), room(499_000_000), &config).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("at least 600 MB of memory and may take 599 MB"),
            "{said}"
        );
        assert!(!said.contains("batch"), "{said}");
        assert!(said.ends_with("(`quantization`: `nf4`)"), "{said}");
    }

    #[test]
    fn only_ways_that_are_left_are_named() {
        let config = TrainingConfig {
            batch_size: 1,
            recompute: true,
            tuning: Tuning::Full {
                train_embeddings: false,
            },
            ..TrainingConfig::default()
        };
        let ways = ways_with_batches(&config).chain(ways_with_weights(&config));
        let ways = ways.collect::<Vec<_>>().join(", ");
        assert!(ways.starts_with("lower `max_seq_len`"), "{ways}");
        assert!(
            !ways.contains("recompute") && !ways.contains("nf4"),
            "{ways}"
        );
        assert!(ways.contains("`tuning`: `lora`"), "{ways}");
    }
}

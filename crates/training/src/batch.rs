//! Which rows make which step, and how rows become the flat token line that the model takes in.

use std::ops::Range;

use domain::TrainingConfig;
use lm::batch::Ragged;
use text::Example;

use crate::random;

/// The order of all rows over all epochs. Where a run stands in its data is just its step.
#[derive(Debug, Clone)]
pub struct Plan {
    n_rows: usize,
    micro_batch: usize,
    global_batch: usize,
    shuffle: bool,
    seed: u64,
    total_steps: u64,
}

impl Plan {
    /// The plan of a run over `n_rows` rows.
    pub fn new(config: &TrainingConfig, n_rows: usize) -> Self {
        let micro_batch = usize::try_from(config.batch_size).expect("at most 256");
        let grad_accum = usize::try_from(config.grad_accum).expect("at most 1024");
        Self {
            n_rows,
            micro_batch,
            global_batch: micro_batch * grad_accum,
            shuffle: config.shuffle,
            seed: config.seed,
            total_steps: config.total_steps(n_rows as u64),
        }
    }

    /// Updates in the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// The rows of every micro-batch of `step`, counted from 0.
    pub fn micro_batches(&self, step: u64) -> Vec<Vec<usize>> {
        let steps_per_epoch = self.n_rows.div_ceil(self.global_batch) as u64;
        let epoch = step / steps_per_epoch;
        let first =
            usize::try_from(step % steps_per_epoch).expect("below n_rows") * self.global_batch;
        let last = (first + self.global_batch).min(self.n_rows);
        self.epoch_order(epoch)[first..last]
            .chunks(self.micro_batch)
            .map(<[usize]>::to_vec)
            .collect()
    }

    fn epoch_order(&self, epoch: u64) -> Vec<usize> {
        if self.shuffle {
            random::permutation(self.n_rows, random::key(&[self.seed, epoch]))
        } else {
            (0..self.n_rows).collect()
        }
    }
}

/// Rows as the model takes them: one line of tokens, and which of its positions predict what.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    /// The tokens, row after row. No row sees another and none is padded.
    pub input: Ragged,
    /// Positions whose next token is supervised.
    pub positions: Vec<usize>,
    /// The supervised tokens, one for each position.
    pub targets: Vec<u32>,
}

impl MicroBatch {
    /// Lays rows behind one another.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a Example>) -> Self {
        let mut batch = Self {
            input: Ragged {
                ids: Vec::new(),
                segments: Vec::new(),
            },
            positions: Vec::new(),
            targets: Vec::new(),
        };
        for row in rows {
            batch.push(row);
        }
        batch
    }

    fn push(&mut self, row: &Example) {
        let offset = self.input.ids.len();
        self.input.ids.extend_from_slice(&row.ids);
        self.input.segments.push(row.ids.len());
        for (index, supervised) in row.supervised.iter().enumerate().skip(1) {
            if *supervised {
                // The token at `index` is predicted from the position before it.
                self.positions.push(offset + index - 1);
                self.targets.push(row.ids[index]);
            }
        }
    }

    /// All tokens, prompts included.
    pub fn n_tokens(&self) -> usize {
        self.input.ids.len()
    }

    /// Tokens that the loss is taken over.
    pub fn n_loss_tokens(&self) -> usize {
        self.targets.len()
    }
}

/// Consecutive rows in groups of about `budget` tokens, at least one row each: how evaluation goes through a file.
pub fn by_tokens(rows: &[Example], budget: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut first, mut tokens) = (0, 0);
    for (index, row) in rows.iter().enumerate() {
        if index > first && tokens + row.ids.len() > budget {
            groups.push(first..index);
            (first, tokens) = (index, 0);
        }
        tokens += row.ids.len();
    }
    if first < rows.len() {
        groups.push(first..rows.len());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Hyperparameters;
    use domain::auto::Facts;

    fn row(ids: &[u32], supervised: &[bool]) -> Example {
        Example {
            ids: ids.to_vec(),
            supervised: supervised.to_vec(),
            truncated: false,
        }
    }

    fn plan(asked: &serde_json::Value, n_rows: usize) -> Plan {
        let config = Hyperparameters::parse("", asked)
            .unwrap()
            .resolve(&Facts::default());
        Plan::new(&config, n_rows)
    }

    #[test]
    fn every_epoch_sees_every_row_once() {
        let plan = plan(
            &serde_json::json!({"n_epochs": 2, "batch_size": 3, "grad_accum": 2, "seed": 5}),
            14,
        );
        assert_eq!(plan.total_steps(), 6);
        for epoch in 0..2 {
            let mut rows: Vec<usize> = (0..3)
                .flat_map(|step| plan.micro_batches(epoch * 3 + step))
                .flatten()
                .collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..14).collect::<Vec<_>>());
        }
        assert_ne!(
            plan.micro_batches(0),
            plan.micro_batches(3),
            "the second epoch is shuffled anew"
        );
    }

    #[test]
    fn a_step_is_split_into_micro_batches() {
        let plan = plan(
            &serde_json::json!({"batch_size": 3, "grad_accum": 2, "shuffle": false}),
            8,
        );
        assert_eq!(plan.micro_batches(0), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!(plan.micro_batches(1), [vec![6, 7]]);
    }

    #[test]
    fn a_target_is_predicted_from_the_position_before_it() {
        let batch = MicroBatch::new(&[
            row(&[10, 11, 12], &[false, false, true]),
            row(&[20, 21, 22], &[true, true, false]),
        ]);
        assert_eq!(batch.input.ids, [10, 11, 12, 20, 21, 22]);
        assert_eq!(batch.input.segments, [3, 3]);
        // Nothing stands before a row's first token, so its being supervised means nothing.
        assert_eq!(batch.positions, [1, 3]);
        assert_eq!(batch.targets, [12, 21]);
    }

    #[test]
    fn groups_keep_to_their_budget_and_lose_no_row() {
        let rows: Vec<Example> = [3, 4, 9, 1, 1]
            .iter()
            .map(|n| row(&vec![1; *n], &vec![false; *n]))
            .collect();
        assert_eq!(by_tokens(&rows, 7), [0..2, 2..3, 3..5]);
    }
}

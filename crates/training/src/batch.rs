//! Which rows make which step, and how rows become the flat token line that the model takes in.

use std::ops::Range;

use dataset::Judgement;
use domain::TrainingConfig;
use lm::batch::Ragged;
use text::Example;

use crate::random;
use crate::rows::{Rows, Sample};

/// A row of one of a run's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pick {
    /// Of the training file.
    Train(usize),
    /// Of the replay file.
    Replay(usize),
}

/// The order of all rows over all epochs. Where a run stands in its data is just its step.
#[derive(Debug, Clone)]
pub struct Plan {
    n_rows: usize,
    /// Replayed rows of an epoch, and how many there are to draw from.
    n_replayed: usize,
    n_replay_rows: usize,
    micro_batch: usize,
    global_batch: usize,
    shuffle: bool,
    seed: u64,
    total_steps: u64,
    steps_per_epoch: u64,
    /// The epoch that was asked for last, and its order.
    current: Option<(u64, Vec<Pick>)>,
}

/// Tells the draws of replayed rows from those of the epoch's order.
const REPLAY: u64 = 0x7265_706c_6179;

impl Plan {
    /// The plan of a run over `n_rows` rows of the training file and, where settings ask for it, some of `n_replay_rows`.
    pub fn new(config: &TrainingConfig, n_rows: usize, n_replay_rows: usize) -> Self {
        let micro_batch = usize::try_from(config.batch_size).expect("at most 256");
        let grad_accum = usize::try_from(config.grad_accum).expect("at most 1024");
        let n_replayed = config.rows_per_epoch(n_rows as u64) - n_rows as u64;
        Self {
            n_rows,
            n_replayed: usize::try_from(n_replayed).expect("rows can be counted"),
            n_replay_rows,
            micro_batch,
            global_batch: micro_batch * grad_accum,
            shuffle: config.shuffle,
            seed: config.seed,
            total_steps: config.total_steps(n_rows as u64),
            steps_per_epoch: config.steps_per_epoch(n_rows as u64),
            current: None,
        }
    }

    /// Updates in the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// The rows of every micro-batch of `step`, counted from 0.
    pub fn micro_batches(&mut self, step: u64) -> Vec<Vec<Pick>> {
        let epoch = step / self.steps_per_epoch;
        let within = usize::try_from(step % self.steps_per_epoch).expect("below the rows");
        let (first, global_batch, micro_batch) = (
            within * self.global_batch,
            self.global_batch,
            self.micro_batch,
        );
        let order = self.order_of(epoch);
        let last = (first + global_batch).min(order.len());
        order[first..last]
            .chunks(micro_batch)
            .map(<[Pick]>::to_vec)
            .collect()
    }

    /// The rows of `epoch` in their order. It is made once for all steps of the epoch.
    fn order_of(&mut self, epoch: u64) -> &[Pick] {
        if self.current.as_ref().is_none_or(|(kept, _)| *kept != epoch) {
            self.current = Some((epoch, self.epoch_order(epoch)));
        }
        self.current.as_ref().map_or(&[], |(_, order)| order)
    }

    fn epoch_order(&self, epoch: u64) -> Vec<Pick> {
        let key = random::key(&[self.seed, epoch]);
        let rows = (0..self.n_rows).map(Pick::Train);
        let rows: Vec<Pick> = rows.chain(self.replayed(epoch)).collect();
        if self.shuffle {
            let order = random::permutation(rows.len(), key);
            order.into_iter().map(|index| rows[index]).collect()
        } else {
            rows
        }
    }

    /// All of the replay file's rows before any of them twice, an epoch going on where the one before ended.
    fn replayed(&self, epoch: u64) -> impl Iterator<Item = Pick> {
        let n = self.n_replay_rows.max(1);
        let order = random::permutation(n, random::key(&[self.seed, REPLAY]));
        let epochs = usize::try_from(epoch % n as u64).expect("below the rows");
        let skipped = epochs * (self.n_replayed % n) % n;
        order
            .into_iter()
            .cycle()
            .skip(skipped)
            .take(self.n_replayed)
            .map(Pick::Replay)
    }
}

/// Rows as the model takes them: one line of tokens, and which of its positions predict what.
#[derive(Debug, Clone, Default)]
pub struct MicroBatch {
    /// The tokens, row after row. No row sees another and none is padded. Where rows are pairs, the better ones come
    /// first and then, in the same order, those they are better than.
    pub input: Ragged,
    /// Positions whose next token is supervised.
    pub positions: Vec<usize>,
    /// The supervised tokens, one for each position.
    pub targets: Vec<u32>,
    /// How many of them each row has.
    pub row_targets: Vec<usize>,
    /// Of each row whether it is good, where rows are judged.
    pub good: Vec<bool>,
}

impl MicroBatch {
    /// Lays rows behind one another.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a Example>) -> Self {
        let mut batch = Self::default();
        for row in rows {
            batch.push(row);
        }
        batch
    }

    /// Lays rows behind one another, and behind them those that they are better than.
    pub fn of(samples: &[Sample]) -> Self {
        let better = samples.iter().map(|sample| &sample.example);
        let worse = samples.iter().filter_map(Sample::other);
        let good = samples.iter().filter_map(|sample| match sample.judgement {
            Judgement::Good => Some(true),
            Judgement::Bad => Some(false),
            Judgement::None | Judgement::BetterThan(_) => None,
        });
        Self {
            good: good.collect(),
            ..Self::new(better.chain(worse))
        }
    }

    fn push(&mut self, row: &Example) {
        let (offset, before) = (self.input.ids.len(), self.targets.len());
        self.input.ids.extend_from_slice(&row.ids);
        self.input.segments.push(row.ids.len());
        for (index, supervised) in row.supervised.iter().enumerate().skip(1) {
            if *supervised {
                // The token at `index` is predicted from the position before it.
                self.positions.push(offset + index - 1);
                self.targets.push(row.ids[index]);
            }
        }
        self.row_targets.push(self.targets.len() - before);
    }

    /// Rows, each of a pair counted.
    pub fn n_rows(&self) -> usize {
        self.row_targets.len()
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
pub fn by_tokens(rows: &Rows, budget: usize) -> Vec<Range<usize>> {
    group((0..rows.len()).map(|index| rows.n_tokens(index)), budget)
}

/// As [`by_tokens`], of rows of these lengths.
pub(crate) fn group(lengths: impl Iterator<Item = usize>, budget: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut first, mut end, mut tokens) = (0, 0, 0);
    for length in lengths {
        if end > first && tokens + length > budget {
            groups.push(first..end);
            (first, tokens) = (end, 0);
        }
        tokens += length;
        end += 1;
    }
    if first < end {
        groups.push(first..end);
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
        plan_with_replay(asked, n_rows, 0)
    }

    fn plan_with_replay(asked: &serde_json::Value, n_rows: usize, n_replay_rows: usize) -> Plan {
        let config = Hyperparameters::parse("", asked)
            .unwrap()
            .resolve(&Facts::default());
        Plan::new(&config, n_rows, n_replay_rows)
    }

    fn train(rows: &[usize]) -> Vec<Pick> {
        rows.iter().map(|row| Pick::Train(*row)).collect()
    }

    #[test]
    fn every_epoch_sees_every_row_once() {
        let mut plan = plan(
            &serde_json::json!({"n_epochs": 2, "batch_size": 3, "grad_accum": 2, "seed": 5}),
            14,
        );
        assert_eq!(plan.total_steps(), 6);
        for epoch in 0..2 {
            let mut rows: Vec<Pick> = (0..3)
                .flat_map(|step| plan.micro_batches(epoch * 3 + step))
                .flatten()
                .collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..14).map(Pick::Train).collect::<Vec<_>>());
        }
        let first = plan.micro_batches(0);
        assert_ne!(
            first,
            plan.micro_batches(3),
            "the second epoch is shuffled anew"
        );
    }

    #[test]
    fn a_step_is_split_into_micro_batches() {
        let mut plan = plan(
            &serde_json::json!({"batch_size": 3, "grad_accum": 2, "shuffle": false}),
            8,
        );
        assert_eq!(
            plan.micro_batches(0),
            [train(&[0, 1, 2]), train(&[3, 4, 5])]
        );
        assert_eq!(plan.micro_batches(1), [train(&[6, 7])]);
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
    fn of_pairs_the_better_rows_come_first() {
        let pair = |better: &[u32], worse: &[u32]| Sample {
            example: row(better, &[false, true]),
            judgement: Judgement::BetterThan(row(worse, &[false, true])),
        };
        let batch = MicroBatch::of(&[pair(&[1, 2], &[1, 3]), pair(&[5, 6], &[5, 7])]);
        assert_eq!(batch.targets, [2, 6, 3, 7]);
        assert_eq!(batch.row_targets, [1; 4]);
    }

    #[test]
    fn groups_keep_to_their_budget_and_lose_no_row() {
        assert_eq!(group([3, 4, 9, 1, 1].into_iter(), 7), [0..2, 2..3, 3..5]);
        assert!(group(std::iter::empty(), 7).is_empty());
    }

    #[test]
    fn replayed_rows_take_their_share_and_all_come_before_any_comes_twice() {
        let asked = serde_json::json!({
            "n_epochs": 4, "batch_size": 2, "replay": {"ratio": 0.25}, "seed": 3,
        });
        let mut plan = plan_with_replay(&asked, 9, 6);
        assert_eq!(plan.total_steps(), 4 * 6);
        let mut seen = Vec::new();
        for epoch in 0..4 {
            let rows: Vec<Pick> = (0..6)
                .flat_map(|step| plan.micro_batches(epoch * 6 + step))
                .flatten()
                .collect();
            assert_eq!(rows.len(), 12);
            seen.extend(
                rows.into_iter()
                    .filter(|pick| matches!(pick, Pick::Replay(_))),
            );
        }
        let (mut first, mut second) = (seen[..6].to_vec(), seen[6..].to_vec());
        first.sort_unstable();
        second.sort_unstable();
        let all: Vec<Pick> = (0..6).map(Pick::Replay).collect();
        assert_eq!((first, second), (all.clone(), all));
    }
}

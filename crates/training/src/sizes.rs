//! How large a run's batches are, without reading a token.

use domain::config::RowKind;
use domain::cost::BatchShape;

use crate::batch::{Pick, by_tokens};
use crate::eval;
use crate::rows::Rows;
use crate::train::Run;

/// The rows of a run by their lengths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes<'a> {
    train: &'a Rows,
    replay: Option<&'a Rows>,
    valid: Option<&'a Rows>,
    /// Whether a row is two texts.
    pairs: bool,
}

impl<'a> Sizes<'a> {
    pub(crate) fn of(run: &Run<'a>) -> Self {
        Self {
            train: run.train,
            replay: run.replay,
            valid: run.valid,
            pairs: run.config.method.row_kind() == RowKind::Preference,
        }
    }

    /// A micro-batch.
    pub(crate) fn batch(&self, picks: &[Pick]) -> BatchShape {
        let rows = picks.iter().map(|pick| match (pick, self.replay) {
            (Pick::Replay(row), Some(rows)) => (rows, *row),
            (Pick::Train(row) | Pick::Replay(row), _) => (self.train, *row),
        });
        self.shape(rows)
    }

    /// What is measured at once of the validation file, one group after the other.
    pub(crate) fn measured(&self) -> impl Iterator<Item = BatchShape> + '_ {
        let groups = self.valid.into_iter().flat_map(|rows| {
            let groups = by_tokens(rows, eval::TOKENS_AT_ONCE);
            groups.into_iter().map(move |group| (rows, group))
        });
        groups.map(|(rows, group)| self.shape(group.map(|row| (rows, row))))
    }

    fn shape<'b>(&self, rows: impl Iterator<Item = (&'b Rows, usize)>) -> BatchShape {
        let mut shape = BatchShape::default();
        for (rows, row) in rows {
            let n = rows.n_tokens(row) as u64;
            if self.pairs {
                // The index knows both texts' tokens together. They share a prompt, so half is near enough.
                shape.rows.extend([n - n / 2, n / 2]);
            } else {
                shape.rows.push(n);
            }
            shape.n_supervised += rows.n_loss_tokens(row) as u64;
        }
        shape
    }
}

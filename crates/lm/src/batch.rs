//! Rows of different lengths in one batch, without padding.

use std::ops::Range;

/// Token ids of several sequences, one after the other.
///
/// Positions restart at 0 in each segment and attention never leaves one, so a segment's result
/// does not depend on its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ragged {
    pub ids: Vec<u32>,
    /// The length of each sequence; they sum to `ids.len()`.
    pub segments: Vec<usize>,
}

/// Neighbouring segments of one length, which attention takes in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: usize,
    pub(crate) count: usize,
    pub(crate) len: usize,
}

impl Ragged {
    /// A batch of one sequence.
    pub fn single(ids: &[u32]) -> Self {
        Self {
            ids: ids.to_vec(),
            segments: vec![ids.len()],
        }
    }

    /// A batch of these sequences. Empty ones take part, with no tokens.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Self::default();
        for row in rows {
            batch.ids.extend_from_slice(row);
            batch.segments.push(row.len());
        }
        batch
    }

    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Where each segment's tokens lie in `ids`.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        ranges(&self.segments)
    }
}

/// Where the tokens of segments of these lengths lie.
pub(crate) fn ranges(segments: &[usize]) -> impl Iterator<Item = Range<usize>> + '_ {
    segments.iter().scan(0, |end, &len| {
        let start = *end;
        *end += len;
        Some(start..*end)
    })
}

/// Each token's position within its segment.
pub(crate) fn positions(segments: &[usize]) -> impl Iterator<Item = usize> + '_ {
    segments.iter().flat_map(|&len| 0..len)
}

pub(crate) fn runs(segments: &[usize]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for range in ranges(segments).filter(|range| !range.is_empty()) {
        match runs.last_mut() {
            Some(run) if run.len == range.len() => run.count += 1,
            _ => runs.push(Run {
                start: range.start,
                count: 1,
                len: range.len(),
            }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_length_form_a_run() {
        assert_eq!(
            runs(&[2, 2, 0, 2, 5, 1]),
            [
                Run {
                    start: 0,
                    count: 3,
                    len: 2
                },
                Run {
                    start: 6,
                    count: 1,
                    len: 5
                },
                Run {
                    start: 11,
                    count: 1,
                    len: 1
                }
            ]
        );
    }

    #[test]
    fn positions_restart_in_each_segment() {
        let batch = Ragged::from_rows([&[7, 8, 9][..], &[1, 2][..]]);
        let found: Vec<_> = positions(&batch.segments).collect();
        assert_eq!(found, [0, 1, 2, 0, 1]);
        assert_eq!(batch.ranges().collect::<Vec<_>>(), [0..3, 3..5]);
    }
}

//! Some of a file's rows, read without the rest of it.

use std::ops::Range;

use artifacts::ArtifactError;
use buckets::ProjectObjects;
use bytes::{Bytes, BytesMut};
use dataset::{Limits, Row, RowError, RowErrorKind, read_rows_of};
use domain::config::RowKind;
use futures::TryStreamExt as _;

/// A file up to this size is read whole.
const WHOLE_BYTES: u64 = 1 << 20;
/// Of a larger one, so many pieces of this size, in equal distances.
const PIECE_BYTES: u64 = 64 << 10;
const N_PIECES: u64 = 16;

/// Whole lines of a file.
pub(super) struct Sample {
    /// The lines, in pieces that each begin and end with a line.
    pieces: Vec<Bytes>,
    /// Whether that is all of the file.
    pub(super) is_whole: bool,
}

impl Sample {
    /// Lines from all over the file.
    ///
    /// # Errors
    /// Storage is away, or the object is gone.
    pub(super) async fn spread(
        objects: &ProjectObjects,
        key: &str,
        size_bytes: u64,
    ) -> Result<Self, ArtifactError> {
        if size_bytes <= WHOLE_BYTES {
            return Self::head(objects, key, size_bytes, WHOLE_BYTES, usize::MAX).await;
        }
        let mut pieces = Vec::new();
        for n in 0..N_PIECES {
            let start = (size_bytes - PIECE_BYTES) * n / (N_PIECES - 1);
            let piece = read(objects, key, start..start + PIECE_BYTES, usize::MAX).await?;
            pieces.push(lines_within(&piece, start == 0, false));
        }
        Ok(Self {
            pieces,
            is_whole: false,
        })
    }

    /// The first `n_lines` lines or so, of at most `max_bytes` bytes together.
    ///
    /// # Errors
    /// As [`Self::spread`].
    pub(super) async fn head(
        objects: &ProjectObjects,
        key: &str,
        size_bytes: u64,
        max_bytes: u64,
        n_lines: usize,
    ) -> Result<Self, ArtifactError> {
        let range = 0..size_bytes.min(max_bytes);
        let piece = read(objects, key, range, n_lines).await?;
        let is_whole = piece.len() as u64 == size_bytes;
        Ok(Self {
            pieces: vec![lines_within(&piece, true, is_whole)],
            is_whole,
        })
    }

    /// Bytes of all lines.
    pub(super) fn n_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The rows, and what is wrong with lines that are none. Line numbers are the file's only in its first piece.
    pub(super) fn rows(&self, kind: RowKind) -> impl Iterator<Item = Result<Row, RowError>> {
        let limits = Limits::default();
        let rows = self
            .pieces
            .iter()
            .flat_map(move |piece| read_rows_of(kind, &piece[..], &limits));
        // A piece may lie within one long line.
        rows.filter(|row| !matches!(row, Err(error) if matches!(error.kind, RowErrorKind::Empty)))
    }
}

/// A range of the object, or its beginning up to the `n_lines`th line's end.
async fn read(
    objects: &ProjectObjects,
    key: &str,
    range: Range<u64>,
    n_lines: usize,
) -> Result<Bytes, ArtifactError> {
    let mut body = objects.get_range(key, range).await?;
    let (mut bytes, mut n_ends) = (BytesMut::new(), 0);
    while let Some(chunk) = body.stream.try_next().await? {
        for (index, _) in chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            n_ends += 1;
            if n_ends == n_lines {
                bytes.extend_from_slice(&chunk[..=index]);
                return Ok(bytes.freeze());
            }
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// The part that begins after a line's end, or at the file's beginning, and ends with one, or at the file's end.
fn lines_within(piece: &Bytes, from_start: bool, to_end: bool) -> Bytes {
    let is_end = |byte: &u8| *byte == b'\n';
    let start = if from_start {
        Some(0)
    } else {
        piece.iter().position(is_end).map(|index| index + 1)
    };
    let end = if to_end {
        Some(piece.len())
    } else {
        piece.iter().rposition(is_end).map(|index| index + 1)
    };
    match (start, end) {
        (Some(start), Some(end)) if start <= end => piece.slice(start..end),
        _ => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_keeps_only_whole_lines() {
        let piece = Bytes::from_static(b"tail\none\ntwo\nhea");
        for (from_start, to_end, expected) in [
            (false, false, "one\ntwo\n"),
            (true, false, "tail\none\ntwo\n"),
            (false, true, "one\ntwo\nhea"),
        ] {
            assert_eq!(lines_within(&piece, from_start, to_end), expected);
        }
        let within_a_line = Bytes::from_static(b"nothing");
        assert_eq!(lines_within(&within_a_line, false, false), "");
        assert_eq!(lines_within(&within_a_line, true, false), "");
    }
}

//! Reading a JSON Lines file of chats, row by row.

use std::io::BufRead;

use domain::config::RowKind;

use crate::lines::{Line, Lines};
use crate::{Faults, Row, RowError, RowErrorKind, json, row};

/// How much of a file is believed to be a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A longer line is refused without being read into memory.
    pub max_line_bytes: usize,
    pub max_rows: u64,
    /// Messages in one row.
    pub max_messages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_line_bytes: 4 << 20,
            max_rows: 3_000_000,
            max_messages: 10_000,
        }
    }
}

/// Read the conversations of `reader`: rows of [`RowKind::Chat`]. See [`read_rows_of`].
pub fn read_rows<R: BufRead>(reader: R, limits: &Limits) -> RowReader<R> {
    read_rows_of(RowKind::Chat, reader, limits)
}

/// Read the rows of `reader`, an error for each faulty line among them.
///
/// Blank lines and a byte order mark are skipped. After a faulty line the next one is read as if
/// nothing had happened; only a failing `reader` and too many rows end the iteration early.
pub fn read_rows_of<R: BufRead>(kind: RowKind, reader: R, limits: &Limits) -> RowReader<R> {
    RowReader {
        kind,
        lines: Lines::new(reader, limits.max_line_bytes),
        limits: limits.clone(),
        n_rows: 0,
        is_done: false,
    }
}

/// The iterator of [`read_rows_of`].
pub struct RowReader<R> {
    kind: RowKind,
    lines: Lines<R>,
    limits: Limits,
    /// Lines that are not blank, faulty ones included.
    n_rows: u64,
    is_done: bool,
}

impl<R: BufRead> RowReader<R> {
    fn parse(&self, line: Line) -> Result<Row, RowErrorKind> {
        if line.is_too_long {
            let max_bytes = self.limits.max_line_bytes;
            return Err(RowErrorKind::LineTooLong { max_bytes });
        }
        let text =
            std::str::from_utf8(self.lines.bytes()).map_err(|error| RowErrorKind::NotUtf8 {
                position: error.valid_up_to(),
            })?;
        let (conversation, judgement) = row::parse(json::parse(text)?, self.kind, &self.limits)?;
        Ok(Row {
            line: line.number,
            hash: row::hash(&conversation, &judgement),
            conversation,
            judgement,
        })
    }

    /// End the iteration with an error about the place that has been reached.
    fn stop(&mut self, kind: RowErrorKind, line: u64, byte_offset: u64) -> RowError {
        self.is_done = true;
        RowError {
            line,
            byte_offset,
            kind,
        }
    }

    fn next_line(&mut self) -> Result<Option<Line>, RowError> {
        let (number, byte_offset) = self.lines.position();
        match self.lines.advance() {
            Ok(Some(line)) => Ok(Some(line)),
            Ok(None) if self.n_rows == 0 => Err(self.stop(RowErrorKind::Empty, 1, 0)),
            Ok(None) => Ok(None),
            Err(error) => Err(self.stop(RowErrorKind::Read(error), number, byte_offset)),
        }
    }
}

impl<R: BufRead> Iterator for RowReader<R> {
    type Item = Result<Row, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_done {
            let line = match self.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => return Some(Err(error)),
            };
            if !line.is_too_long && self.lines.bytes().trim_ascii().is_empty() {
                continue;
            }
            let Line {
                number,
                byte_offset,
                ..
            } = line;
            if self.n_rows == self.limits.max_rows {
                let kind = RowErrorKind::TooManyRows {
                    max_rows: self.limits.max_rows,
                };
                return Some(Err(self.stop(kind, number, byte_offset)));
            }
            self.n_rows += 1;
            return Some(self.parse(line).map_err(|kind| RowError {
                line: number,
                byte_offset,
                kind,
            }));
        }
        self.is_done = true;
        None
    }
}

/// Read all rows, or learn of all faulty lines: the first `max_faults` in words, all in number.
///
/// # Errors
/// There is a faulty line, or the reader fails (then that error is the last of the faults; see
/// [`RowErrorKind::is_fault`]).
pub fn collect_rows(
    reader: impl BufRead,
    limits: &Limits,
    max_faults: usize,
) -> Result<Vec<Row>, Faults> {
    let mut rows = Vec::new();
    let mut faults = Faults {
        first: Vec::new(),
        total: 0,
    };
    for row in read_rows(reader, limits) {
        match row {
            Ok(row) if faults.total == 0 => rows.push(row),
            Ok(_) => {}
            Err(error) => {
                faults.total += 1;
                // The rows are of no use any more, and the file may still be long.
                rows = Vec::new();
                if faults.first.len() < max_faults || !error.kind.is_fault() {
                    faults.first.push(error);
                }
            }
        }
    }
    if faults.total == 0 {
        Ok(rows)
    } else {
        Err(faults)
    }
}

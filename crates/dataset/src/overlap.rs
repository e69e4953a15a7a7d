//! Rows that say the same thing twice: within a file, or in training and validation both.
//!
//! A row seen twice counts double; a validation row that was trained on measures memory.

use std::collections::HashMap;

use crate::Row;

/// A row, and an earlier one that says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    pub line: u64,
    /// The first line with these words: in the same file, or in the other one.
    pub first_line: u64,
}

/// The hashes of rows already seen. 40 bytes a row, so that a file need not be held in memory.
#[derive(Debug, Default)]
pub struct SeenRows {
    first_lines: HashMap<[u8; 32], u64>,
}

impl SeenRows {
    pub fn new() -> Self {
        Self::default()
    }

    /// Note `row`; if it has been seen, where first.
    pub fn insert(&mut self, row: &Row) -> Option<Repeat> {
        let repeat = self.find(row);
        self.first_lines.entry(row.hash).or_insert(row.line);
        repeat
    }

    /// Where `row` has been seen first, without noting it.
    pub fn find(&self, row: &Row) -> Option<Repeat> {
        let first_line = *self.first_lines.get(&row.hash)?;
        Some(Repeat {
            line: row.line,
            first_line,
        })
    }
}

/// The rows that repeat an earlier row.
pub fn duplicates<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Repeat> {
    let mut seen = SeenRows::new();
    rows.into_iter()
        .filter_map(|row| seen.insert(row))
        .collect()
}

/// The validation rows (`line`) that are also training rows (`first_line`).
pub fn shared<'a>(
    training: impl IntoIterator<Item = &'a Row>,
    validation: impl IntoIterator<Item = &'a Row>,
) -> Vec<Repeat> {
    let mut seen = SeenRows::new();
    for row in training {
        seen.insert(row);
    }
    validation
        .into_iter()
        .filter_map(|row| seen.find(row))
        .collect()
}

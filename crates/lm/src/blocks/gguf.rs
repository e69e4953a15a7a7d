//! Rows of blocks as a GGUF file holds them.

use std::fmt;

use crate::gguf::{TensorType, read};

/// A matrix of a GGUF file, its blocks untouched.
pub struct GgufBlocks {
    kind: TensorType,
    columns: usize,
    row_bytes: usize,
    bytes: Box<[u8]>,
}

impl GgufBlocks {
    /// # Panics
    /// When a row is no whole number of blocks, or `bytes` no whole number of rows.
    pub(crate) fn new(kind: TensorType, columns: usize, bytes: Vec<u8>) -> Self {
        assert!(
            columns.is_multiple_of(kind.block_len()),
            "rows are whole blocks"
        );
        let row_bytes = columns / kind.block_len() * kind.block_bytes();
        assert!(bytes.len().is_multiple_of(row_bytes), "rows are whole");
        Self {
            kind,
            columns,
            row_bytes,
            bytes: bytes.into_boxed_slice(),
        }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn read(&self, row: usize, first: usize, values: &mut [f32]) {
        let row = &self.bytes[row * self.row_bytes..][..self.row_bytes];
        read(self.kind, row, first, values);
    }
}

impl fmt::Debug for GgufBlocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n_rows, columns) = (self.n_rows(), self.columns);
        write!(formatter, "GgufBlocks({} {n_rows}×{columns})", self.kind)
    }
}

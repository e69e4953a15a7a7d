//! The right factor of a product, as the kernels ask for it: a panel of it packed, or a few rows of it widened.

use std::ops::Range;

use half::bf16;

use super::pack::{pack_columns, pack_rows};
use super::widen::widen;

/// A matrix that products read a piece at a time.
pub(in crate::ops::cpu) trait Factor: Sync {
    /// Rows and columns.
    fn dims(&self) -> [usize; 2];

    /// Rows `panel`, as the columns of the transpose; `packed` comes filled with zeros.
    fn pack_rows(&self, panel: usize, packed: &mut [bf16]);

    /// Columns `panel`; `packed` comes filled with zeros.
    fn pack_columns(&self, panel: usize, packed: &mut [bf16]);

    /// Whole rows in f32.
    fn widen(&self, rows: Range<usize>, out: &mut [f32]);
}

/// A matrix in bfloat16, row after row.
#[derive(Clone, Copy)]
pub(in crate::ops::cpu) struct Dense<'a> {
    values: &'a [bf16],
    columns: usize,
}

impl<'a> Dense<'a> {
    pub(in crate::ops::cpu) fn new(values: &'a [bf16], columns: usize) -> Self {
        Self { values, columns }
    }
}

impl Factor for Dense<'_> {
    fn dims(&self) -> [usize; 2] {
        [self.values.len() / self.columns, self.columns]
    }

    fn pack_rows(&self, panel: usize, packed: &mut [bf16]) {
        pack_rows(self.values, self.columns, panel, packed);
    }

    fn pack_columns(&self, panel: usize, packed: &mut [bf16]) {
        pack_columns(self.values, self.columns, panel, packed);
    }

    fn widen(&self, rows: Range<usize>, out: &mut [f32]) {
        widen(&self.values[rows.start * self.columns..], out);
    }
}

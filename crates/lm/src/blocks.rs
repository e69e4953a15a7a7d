//! Frozen matrices in blocks of few bits: as a GGUF file holds them, or quantised to NF4 at load (Dettmers et al. 2023,
//! "QLoRA").
//!
//! Blocks lie in host memory and within a matrix's rows, so rows can be joined and put in another order without decoding
//! them. Products read them a run of columns at a time; the whole matrix in floats is for tests and for devices that have
//! no such product.

mod gguf;
mod nf4;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

pub use gguf::GgufBlocks;
pub(crate) use nf4::{Nf4, Quantizer};

/// Values that are decoded at a time, and of which every format's blocks consist.
pub(crate) const RUN: usize = crate::gguf::RUN;

/// A matrix in blocks.
#[derive(Debug, Clone)]
pub(crate) struct Blocks {
    columns: usize,
    /// One below the other.
    parts: Vec<Part>,
}

/// Some rows of what was read together.
#[derive(Debug, Clone)]
struct Part {
    of: Arc<Rows>,
    rows: Range<usize>,
}

/// Rows of one format.
#[derive(Debug)]
pub(crate) enum Rows {
    /// As a GGUF file has them.
    Gguf(GgufBlocks),
    Nf4(Nf4),
}

impl Rows {
    /// Whether every value is finite.
    pub(crate) fn is_finite(&self) -> bool {
        let columns = self.columns();
        let finite = |values: &mut Vec<f32>, row| {
            self.read(row, 0, values);
            values.iter().all(|value| value.is_finite())
        };
        let rows = (0..self.n_rows()).into_par_iter();
        rows.map_init(|| vec![0.0; columns], finite)
            .all(|finite| finite)
    }

    fn n_rows(&self) -> usize {
        match self {
            Self::Gguf(rows) => rows.n_rows(),
            Self::Nf4(rows) => rows.n_rows(),
        }
    }

    fn columns(&self) -> usize {
        match self {
            Self::Gguf(rows) => rows.columns(),
            Self::Nf4(rows) => rows.columns(),
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Gguf(rows) => rows.size_bytes(),
            Self::Nf4(rows) => rows.size_bytes(),
        }
    }

    fn read(&self, row: usize, first: usize, values: &mut [f32]) {
        match self {
            Self::Gguf(rows) => rows.read(row, first, values),
            Self::Nf4(rows) => rows.read(row, first, values),
        }
    }
}

impl Blocks {
    /// The parts' rows one below the other.
    ///
    /// # Panics
    /// When there is no part, or their rows differ in length.
    pub(crate) fn new(parts: Vec<Rows>) -> Self {
        let columns = parts[0].columns();
        assert!(
            parts.iter().all(|part| part.columns() == columns),
            "rows below each other are equally long"
        );
        let parts = parts.into_iter().map(|part| Part {
            rows: 0..part.n_rows(),
            of: Arc::new(part),
        });
        Self {
            columns,
            parts: parts.collect(),
        }
    }

    /// Rows and columns.
    pub(crate) fn dims(&self) -> [usize; 2] {
        let n_rows = self.parts.iter().map(|part| part.rows.len()).sum();
        [n_rows, self.columns]
    }

    /// These rows of it, not copied.
    pub(crate) fn narrow(&self, rows: Range<usize>) -> Self {
        let mut end = 0;
        let parts = self.parts.iter().map(|part| {
            let first = end;
            end += part.rows.len();
            let within = rows.start.clamp(first, end) - first..rows.end.clamp(first, end) - first;
            Part {
                of: part.of.clone(),
                rows: part.rows.start + within.start..part.rows.start + within.end,
            }
        });
        let parts = parts.filter(|part| !part.rows.is_empty()).collect();
        Self {
            columns: self.columns,
            parts,
        }
    }

    /// Bytes that the blocks take, those of rows that [`Self::narrow`] left out included.
    pub(crate) fn size_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.of.size_bytes()).sum()
    }

    /// Fills `values` with those of `row` from column `first` on, a multiple of [`RUN`].
    pub(crate) fn read(&self, mut row: usize, first: usize, values: &mut [f32]) {
        for part in &self.parts {
            let n_rows = part.rows.len();
            if row < n_rows {
                return part.of.read(part.rows.start + row, first, values);
            }
            row -= n_rows;
        }
        panic!("row {row} lies below the last one");
    }

    /// Fills `values` with whole rows.
    pub(crate) fn read_rows(&self, rows: Range<usize>, values: &mut [f32]) {
        for (row, values) in rows.zip(values.chunks_exact_mut(self.columns)) {
            self.read(row, 0, values);
        }
    }

    /// The whole matrix, row by row.
    pub(crate) fn dense(&self) -> Vec<f32> {
        let [n_rows, columns] = self.dims();
        let mut values = vec![0.0; n_rows * columns];
        let rows = values.par_chunks_mut(columns).enumerate();
        rows.for_each(|(row, values)| self.read(row, 0, values));
        values
    }

    /// The length of each row as a vector.
    pub(crate) fn row_norms(&self) -> Vec<f32> {
        let [n_rows, columns] = self.dims();
        let length = |values: &mut Vec<f32>, row| {
            self.read(row, 0, values);
            norm(values)
        };
        let rows = (0..n_rows).into_par_iter();
        rows.map_init(|| vec![0.0; columns], length).collect()
    }
}

/// The length of a vector.
#[expect(clippy::cast_possible_truncation, reason = "summed in f64")]
pub(crate) fn norm(values: &[f32]) -> f32 {
    let squares = values
        .iter()
        .map(|value| f64::from(*value) * f64::from(*value));
    squares.sum::<f64>().sqrt() as f32
}

#[cfg(test)]
pub(crate) mod testing {
    //! Matrices in blocks for tests.

    use super::{Blocks, GgufBlocks, Nf4, Quantizer, Rows};
    use crate::gguf::TensorType;
    use crate::rng::splitmix64;

    /// Random values in NF4.
    pub(crate) fn nf4(name: &str, n_rows: usize, columns: usize) -> Rows {
        let values = crate::ops::testing::random_values(name, n_rows * columns);
        Rows::Nf4(quantized(&values, columns))
    }

    pub(crate) fn quantized(values: &[f32], columns: usize) -> Nf4 {
        let mut quantizer = Quantizer::new(columns);
        quantizer.push(values);
        quantizer.finish()
    }

    /// Random blocks as a GGUF file might hold them.
    pub(crate) fn gguf(kind: TensorType, n_rows: usize, columns: usize) -> Rows {
        let n_blocks = n_rows * columns / kind.block_len();
        let mut bytes: Vec<u8> = (0..(n_blocks * kind.block_bytes()) as u64)
            .map(|at| splitmix64(at ^ splitmix64(columns as u64)).to_le_bytes()[7])
            .collect();
        for block in bytes.chunks_exact_mut(kind.block_bytes()) {
            for at in kind.half_floats() {
                // Between 2⁻⁷ and 2⁻⁵, of either sign: random bits may be no number.
                block[at + 1] = block[at + 1] & 0x84 | 0x20;
            }
        }
        Rows::Gguf(GgufBlocks::new(kind, columns, bytes))
    }

    /// Matrices of every format, and one of several.
    pub(crate) fn every_kind(n_rows: usize, columns: usize) -> Vec<Blocks> {
        let mut all = vec![Blocks::new(vec![nf4("weight", n_rows, columns)])];
        for kind in TensorType::BLOCKS {
            if columns.is_multiple_of(kind.block_len()) {
                all.push(Blocks::new(vec![gguf(kind, n_rows, columns)]));
            }
        }
        let (upper, lower) = (n_rows / 3, n_rows - n_rows / 3);
        if upper > 0 && columns.is_multiple_of(32) {
            let parts = vec![
                gguf(TensorType::Q4_1, upper, columns),
                nf4("lower", lower, columns),
            ];
            all.push(Blocks::new(parts));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::testing::every_kind;
    use super::*;

    #[test]
    fn pieces_of_rows_are_those_of_the_whole() {
        for blocks in every_kind(7, 512) {
            let dense = blocks.dense();
            for row in 0..7 {
                for columns in [0..512, 32..64, 480..512, 256..416] {
                    let mut values = vec![f32::NAN; columns.len()];
                    blocks.read(row, columns.start, &mut values);
                    assert_eq!(values, dense[row * 512..][columns], "{blocks:?}");
                }
            }
        }
    }

    #[test]
    fn some_rows_are_those_of_the_whole() {
        for blocks in every_kind(9, 256) {
            let dense = blocks.dense();
            for rows in [0..9, 0..3, 3..9, 2..5, 4..4] {
                let narrowed = blocks.narrow(rows.clone());
                assert_eq!(narrowed.dims(), [rows.len(), 256]);
                let expected = &dense[rows.start * 256..rows.end * 256];
                assert_eq!(narrowed.dense(), expected, "{rows:?} of {blocks:?}");
                let twice = blocks.narrow(1..8).narrow(1..4);
                assert_eq!(twice.dense(), dense[2 * 256..5 * 256]);
            }
        }
    }

    #[test]
    fn norms_are_those_of_the_rows() {
        for blocks in every_kind(5, 256) {
            let expected: Vec<f32> = blocks.dense().chunks(256).map(norm).collect();
            assert_eq!(blocks.row_norms(), expected);
        }
    }
}

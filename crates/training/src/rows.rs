//! Rows as tokens, in a file of their own: a dataset may be larger than memory, and a step reads just its own rows.
//!
//! The file has no name and is gone with its last handle. In memory stay a few numbers for each row.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use dataset::Judgement;
use domain::DataReport;
use text::Example;

/// A row as tokens, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The row.
    pub example: Example,
    /// Whether it is good, or better than another.
    pub judgement: Judgement<Example>,
}

/// The rows of one file, ready to train on.
#[derive(Debug)]
pub struct Rows {
    tokens: File,
    index: Vec<Slot>,
    /// What was found.
    pub report: DataReport,
}

/// What is known of a row without reading it.
#[derive(Debug, Clone, Copy)]
struct Slot {
    offset: u64,
    n_bytes: u32,
    n_tokens: u32,
    n_loss_tokens: u32,
    line: u64,
    /// The first half of the SHA-256 over the row's words: enough to tell rows apart.
    hash: u128,
}

/// Set in a token that is supervised. Ids stay below it.
const SUPERVISED: u32 = 1 << 31;

impl Rows {
    /// Rows with nothing in them yet, in a file under `scratch`.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn create(scratch: &Path) -> io::Result<RowsWriter> {
        Ok(RowsWriter {
            tokens: BufWriter::new(tempfile::tempfile_in(scratch)?),
            index: Vec::new(),
            end: 0,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The row at `index`.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn get(&self, index: usize) -> io::Result<Sample> {
        let slot = self.index[index];
        let mut bytes = vec![0; slot.n_bytes as usize];
        self.tokens.read_exact_at(&mut bytes, slot.offset)?;
        decode(&bytes).ok_or_else(|| {
            let message = format!("the tokens of line {} are damaged", slot.line);
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }

    /// The line of the dataset file that the row at `index` stands on, counted from 1.
    pub fn line(&self, index: usize) -> u64 {
        self.index[index].line
    }

    /// Tokens of the row at `index`, both answers' where there are two.
    pub fn n_tokens(&self, index: usize) -> usize {
        self.index[index].n_tokens as usize
    }

    /// Supervised tokens of the row at `index`.
    pub fn n_loss_tokens(&self, index: usize) -> usize {
        self.index[index].n_loss_tokens as usize
    }

    /// How many rows of `other` are also in `self`, word for word.
    pub fn overlap(&self, other: &Self) -> u64 {
        let mine: HashSet<u128> = self.index.iter().map(|slot| slot.hash).collect();
        let shared = other.index.iter().filter(|slot| mine.contains(&slot.hash));
        shared.count() as u64
    }
}

/// Writes [`Rows`], one after the other.
#[derive(Debug)]
pub struct RowsWriter {
    tokens: BufWriter<File>,
    index: Vec<Slot>,
    end: u64,
}

impl RowsWriter {
    /// Adds a row: its line in the dataset file and the SHA-256 of its words.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push(&mut self, sample: &Sample, line: u64, hash: &[u8; 32]) -> io::Result<()> {
        let bytes = encode(sample);
        self.tokens.write_all(&bytes)?;
        let (half, _) = hash.split_first_chunk().expect("32 bytes hold 16");
        let n_bytes = small(bytes.len());
        self.index.push(Slot {
            offset: self.end,
            n_bytes,
            n_tokens: small(sample.n_tokens()),
            n_loss_tokens: small(sample.n_supervised()),
            line,
            hash: u128::from_le_bytes(*half),
        });
        self.end += u64::from(n_bytes);
        Ok(())
    }

    /// How many there are so far.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// All rows are there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self, report: DataReport) -> io::Result<Rows> {
        Ok(Rows {
            tokens: self.tokens.into_inner().map_err(io::Error::from)?,
            index: self.index,
            report,
        })
    }
}

impl Sample {
    /// A row that is to be learned.
    pub fn plain(example: Example) -> Self {
        Self {
            example,
            judgement: Judgement::None,
        }
    }

    /// The row, and the one it is better than.
    pub fn examples(&self) -> impl Iterator<Item = &Example> {
        [&self.example].into_iter().chain(self.other())
    }

    /// The row that it is better than.
    pub fn other(&self) -> Option<&Example> {
        match &self.judgement {
            Judgement::BetterThan(other) => Some(other),
            Judgement::None | Judgement::Good | Judgement::Bad => None,
        }
    }

    fn n_tokens(&self) -> usize {
        self.examples().map(Example::n_tokens).sum()
    }

    fn n_supervised(&self) -> usize {
        self.examples().map(Example::n_supervised).sum()
    }
}

/// A byte for the judgement, then each text: its length and its tokens, four bytes each.
fn encode(sample: &Sample) -> Vec<u8> {
    let mut bytes = vec![match sample.judgement {
        Judgement::None => 0,
        Judgement::BetterThan(_) => 1,
        Judgement::Good => 2,
        Judgement::Bad => 3,
    }];
    for example in sample.examples() {
        bytes.extend(small(example.ids.len()).to_le_bytes());
        for (id, supervised) in example.ids.iter().zip(&example.supervised) {
            let mark = if *supervised { SUPERVISED } else { 0 };
            bytes.extend((id | mark).to_le_bytes());
        }
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Sample> {
    let (judgement, rest) = bytes.split_first()?;
    let (example, rest) = decode_example(rest)?;
    let judgement = match judgement {
        0 => Judgement::None,
        1 => Judgement::BetterThan(decode_example(rest)?.0),
        2 => Judgement::Good,
        3 => Judgement::Bad,
        _ => return None,
    };
    Some(Sample { example, judgement })
}

fn decode_example(bytes: &[u8]) -> Option<(Example, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (tokens, rest) = rest.split_at_checked(len * 4)?;
    let (tokens, _) = tokens.as_chunks();
    let tokens = tokens.iter().map(|token| u32::from_le_bytes(*token));
    let (ids, supervised) = tokens
        .map(|token| (token & !SUPERVISED, token & SUPERVISED != 0))
        .unzip();
    let example = Example {
        ids,
        supervised,
        // Counted when the row was read; nothing afterwards asks.
        truncated: false,
    };
    Some((example, rest))
}

fn small(n: usize) -> u32 {
    u32::try_from(n).expect("a row stays below 2^20 tokens")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(ids: &[u32]) -> Example {
        Example {
            ids: ids.to_vec(),
            supervised: ids.iter().map(|id| id % 2 == 1).collect(),
            truncated: false,
        }
    }

    #[test]
    fn rows_come_back_as_they_went_in_whatever_the_order() {
        let samples = [
            Sample::plain(example(&[1, 2, 3])),
            Sample {
                example: example(&[SUPERVISED - 1]),
                judgement: Judgement::BetterThan(example(&[])),
            },
            Sample {
                example: example(&[8, 9]),
                judgement: Judgement::Bad,
            },
        ];
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Rows::create(dir.path()).unwrap();
        for (line, sample) in (1..).zip(&samples) {
            writer.push(sample, line, &[0; 32]).unwrap();
        }
        let rows = writer.finish(DataReport::default()).unwrap();
        for index in [2, 0, 1] {
            assert_eq!(rows.get(index).unwrap(), samples[index]);
        }
        assert_eq!(
            (rows.n_tokens(0), rows.n_loss_tokens(0), rows.line(2)),
            (3, 2, 3)
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn torn_bytes_are_no_row() {
        let bytes = encode(&Sample::plain(example(&[1, 2, 3])));
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), None, "{len}");
        }
    }
}

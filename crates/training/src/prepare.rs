//! From a dataset file to rows that training takes, and a report of what was found on the way.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use dataset::{Limits, Row, RowErrorKind, read_rows};
use domain::DataReport;
use serde::Serialize;
use sha2::{Digest, Sha256};
use text::{Example, TextModel};

/// How many faulty lines a [`DataFault`] names. Whoever has more has the same few mistakes many times.
const FAULTS_SHOWN: usize = 10;

/// The rows of one file, ready to train on.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Tokens and mask, in the file's order.
    pub examples: Vec<Example>,
    /// The line of each example, counted from 1.
    pub lines: Vec<u64>,
    /// One hash for each example, of the row before tokenizing.
    pub hashes: Vec<[u8; 32]>,
    /// What was found.
    pub report: DataReport,
}

/// A file that cannot be trained on. The message is for its owner.
#[derive(Debug, thiserror::Error)]
pub enum DataFault {
    /// The file could not be read: ours to mend, not its owner's.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Lines that are no rows.
    #[error("{}", describe(faults, *more))]
    Rows {
        /// The first faulty lines.
        faults: Vec<RowFault>,
        /// How many more there are.
        more: u64,
    },
    /// No row at all.
    #[error("the file holds no rows; it needs one JSON object a line, each with a `messages` list")]
    Empty,
    /// Rows, but nothing to learn in them.
    #[error(
        "none of the file's {n_rows} rows has anything left to learn after it is cut at {max_seq_len} tokens; \
         raise `max_seq_len` or shorten the prompts"
    )]
    NothingToLearn {
        /// Rows of the file.
        n_rows: u64,
        /// Where they are cut.
        max_seq_len: usize,
    },
}

/// One faulty line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowFault {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub message: String,
}

impl Rows {
    /// Reads, checks and tokenizes the chat rows of a JSONL file.
    ///
    /// # Errors
    /// [`DataFault::Rows`] names the first faulty lines; nothing is left out silently.
    pub fn read(
        path: &Path,
        text: &TextModel,
        max_seq_len: usize,
        limits: &Limits,
    ) -> Result<Self, DataFault> {
        let file = File::open(path).map_err(|source| DataFault::Io {
            path: path.display().to_string(),
            source,
        })?;
        let mut reading = Reading::default();
        for row in read_rows(BufReader::new(file), limits) {
            match row {
                Ok(row) => reading.take(&row, text, max_seq_len),
                Err(error) => match error.kind {
                    RowErrorKind::Read(source) => {
                        return Err(DataFault::Io {
                            path: path.display().to_string(),
                            source,
                        });
                    }
                    RowErrorKind::Empty => return Err(DataFault::Empty),
                    _ => reading.fault(error.line, error.to_string()),
                },
            }
        }
        reading.finish(max_seq_len)
    }

    /// How many rows of `other` are also in `self`, word for word.
    pub fn overlap(&self, other: &Self) -> u64 {
        let mine: HashSet<_> = self.hashes.iter().collect();
        other
            .hashes
            .iter()
            .filter(|hash| mine.contains(hash))
            .count() as u64
    }
}

#[derive(Default)]
struct Reading {
    examples: Vec<Example>,
    lines: Vec<u64>,
    hashes: Vec<[u8; 32]>,
    seen: HashSet<[u8; 32]>,
    report: DataReport,
    faults: Vec<RowFault>,
    more_faults: u64,
}

impl Reading {
    fn take(&mut self, row: &Row, text: &TextModel, max_seq_len: usize) {
        let example = match text.encode_example(&row.conversation, max_seq_len) {
            Ok(example) => example,
            Err(error) => {
                let message = domain::failure::error_chain(&error);
                return self.fault(row.line, format!("line {}: {message}", row.line));
            }
        };
        self.report.duplicate_rows += u64::from(!self.seen.insert(row.hash));
        self.report.truncated_rows += u64::from(example.truncated);
        // The first token is predicted from nothing, so it cannot be learned.
        if !example
            .supervised
            .iter()
            .skip(1)
            .any(|supervised| *supervised)
        {
            self.report.skipped_rows += 1;
            return;
        }
        self.report.n_rows += 1;
        self.report.n_tokens += example.n_tokens() as u64;
        self.report.n_loss_tokens += example.n_supervised() as u64;
        self.examples.push(example);
        self.lines.push(row.line);
        self.hashes.push(row.hash);
    }

    fn fault(&mut self, line: u64, message: String) {
        if self.faults.len() < FAULTS_SHOWN {
            self.faults.push(RowFault { line, message });
        } else {
            self.more_faults += 1;
        }
    }

    fn finish(mut self, max_seq_len: usize) -> Result<Rows, DataFault> {
        if !self.faults.is_empty() {
            return Err(DataFault::Rows {
                faults: self.faults,
                more: self.more_faults,
            });
        }
        if self.examples.is_empty() {
            return Err(match self.report.skipped_rows {
                0 => DataFault::Empty,
                n_rows => DataFault::NothingToLearn {
                    n_rows,
                    max_seq_len,
                },
            });
        }
        self.report.fingerprint = fingerprint(&self.examples);
        Ok(Rows {
            examples: self.examples,
            lines: self.lines,
            hashes: self.hashes,
            report: self.report,
        })
    }
}

fn fingerprint(examples: &[Example]) -> String {
    let mut hash = Sha256::new();
    for example in examples {
        hash.update((example.ids.len() as u64).to_le_bytes());
        for (id, supervised) in example.ids.iter().zip(&example.supervised) {
            hash.update(id.to_le_bytes());
            hash.update([u8::from(*supervised)]);
        }
    }
    hex::encode(hash.finalize())
}

fn describe(faults: &[RowFault], more: u64) -> String {
    let mut said: Vec<String> = faults.iter().map(|fault| fault.message.clone()).collect();
    if more > 0 {
        said.push(format!("and {more} more faulty lines"));
    }
    said.join("; ")
}

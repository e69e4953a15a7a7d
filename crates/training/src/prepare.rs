//! From a dataset file to rows that training takes, and a report of what was found on the way.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use dataset::{Judgement, Limits, Row, RowErrorKind, read_rows_of};
use domain::config::RowKind;
use domain::{DataReport, TrainingConfig};
use serde::Serialize;
use sha2::{Digest, Sha256};
use text::{Example, TextError, TextModel};

use crate::rows::{Rows, RowsWriter, Sample};

/// How many faulty lines a [`DataFault`] names. Whoever has more has the same few mistakes many times.
const FAULTS_SHOWN: usize = 10;

/// A file that cannot be trained on. The message is for its owner.
#[derive(Debug, thiserror::Error)]
pub enum DataFault {
    /// The file could not be read, or its tokens not be written: ours to mend, not its owner's.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
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

/// How the rows of a file are to be read.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// What a row is.
    pub kind: RowKind,
    /// Rows are cut after this many tokens.
    pub max_seq_len: usize,
}

impl Format {
    /// What a run with these settings trains and measures on.
    pub fn of(config: &TrainingConfig) -> Self {
        Self {
            kind: config.method.row_kind(),
            max_seq_len: usize::try_from(config.max_seq_len).expect("at most 2^20"),
        }
    }
}

impl Rows {
    /// Reads, checks and tokenizes the rows of a JSONL file. The tokens go to a file under `scratch`.
    ///
    /// # Errors
    /// [`DataFault::Rows`] names the first faulty lines; nothing is left out silently.
    pub fn read(
        path: &Path,
        text: &TextModel,
        format: Format,
        limits: &Limits,
        scratch: &Path,
    ) -> Result<Self, DataFault> {
        let file = File::open(path).map_err(io_fault("read", path))?;
        let mut reading = Reading::new(format, scratch)?;
        for row in read_rows_of(format.kind, BufReader::new(file), limits) {
            match row {
                Ok(row) => reading
                    .take(&row, text)
                    .map_err(io_fault("write the tokens of", path))?,
                Err(error) => match error.kind {
                    RowErrorKind::Read(source) => return Err(io_fault("read", path)(source)),
                    RowErrorKind::Empty => return Err(DataFault::Empty),
                    _ => reading.fault(error.line, error.to_string()),
                },
            }
        }
        reading.finish(path)
    }
}

fn io_fault(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DataFault {
    move |source| DataFault::Io {
        doing,
        path: path.display().to_string(),
        source,
    }
}

struct Reading {
    format: Format,
    rows: RowsWriter,
    /// Over tokens and mask of all rows.
    fingerprint: Sha256,
    seen: HashSet<[u8; 32]>,
    report: DataReport,
    faults: Vec<RowFault>,
    more_faults: u64,
}

impl Reading {
    fn new(format: Format, scratch: &Path) -> Result<Self, DataFault> {
        Ok(Self {
            format,
            rows: Rows::create(scratch).map_err(io_fault("make a file in", scratch))?,
            fingerprint: Sha256::new(),
            seen: HashSet::new(),
            report: DataReport::default(),
            faults: Vec::new(),
            more_faults: 0,
        })
    }

    fn take(&mut self, row: &Row, text: &TextModel) -> std::io::Result<()> {
        let sample = match encode(row, text, self.format.max_seq_len) {
            Ok(sample) => sample,
            Err(error) => {
                let message = domain::failure::error_chain(&error);
                self.fault(row.line, format!("line {}: {message}", row.line));
                return Ok(());
            }
        };
        self.report.duplicate_rows += u64::from(!self.seen.insert(row.hash));
        self.report.truncated_rows += u64::from(sample.examples().any(|example| example.truncated));
        if !sample.examples().all(has_targets) {
            self.report.skipped_rows += 1;
            return Ok(());
        }
        self.report.n_rows += 1;
        // Of a row that was cut, the end is what is missing; that is said already.
        let is_endless = |example: &Example| !example.truncated && !text.learns_to_end(example);
        self.report.rows_without_end += u64::from(sample.examples().any(is_endless));
        for example in sample.examples() {
            self.report.n_tokens += example.n_tokens() as u64;
            self.report.n_loss_tokens += example.n_supervised() as u64;
            add_to_fingerprint(&mut self.fingerprint, example);
        }
        match sample.judgement {
            Judgement::None | Judgement::BetterThan(_) => {}
            Judgement::Good => self.fingerprint.update([2]),
            Judgement::Bad => self.fingerprint.update([3]),
        }
        self.rows.push(&sample, row.line, &row.hash)
    }

    fn fault(&mut self, line: u64, message: String) {
        if self.faults.len() < FAULTS_SHOWN {
            self.faults.push(RowFault { line, message });
        } else {
            self.more_faults += 1;
        }
    }

    fn finish(mut self, path: &Path) -> Result<Rows, DataFault> {
        if !self.faults.is_empty() {
            return Err(DataFault::Rows {
                faults: self.faults,
                more: self.more_faults,
            });
        }
        if self.rows.is_empty() {
            return Err(match self.report.skipped_rows {
                0 => DataFault::Empty,
                n_rows => DataFault::NothingToLearn {
                    n_rows,
                    max_seq_len: self.format.max_seq_len,
                },
            });
        }
        self.report.fingerprint = hex::encode(self.fingerprint.finalize());
        self.rows
            .finish(self.report)
            .map_err(io_fault("write the tokens of", path))
    }
}

fn encode(row: &Row, text: &TextModel, max_seq_len: usize) -> Result<Sample, TextError> {
    let encode = |conversation| text.encode_example(conversation, max_seq_len);
    Ok(Sample {
        example: encode(&row.conversation)?,
        judgement: match &row.judgement {
            Judgement::None => Judgement::None,
            Judgement::BetterThan(other) => Judgement::BetterThan(encode(other)?),
            Judgement::Good => Judgement::Good,
            Judgement::Bad => Judgement::Bad,
        },
    })
}

/// The first token is predicted from nothing, so it cannot be learned.
fn has_targets(example: &Example) -> bool {
    example
        .supervised
        .iter()
        .skip(1)
        .any(|supervised| *supervised)
}

fn add_to_fingerprint(hash: &mut Sha256, example: &Example) {
    hash.update((example.ids.len() as u64).to_le_bytes());
    for (id, supervised) in example.ids.iter().zip(&example.supervised) {
        hash.update(id.to_le_bytes());
        hash.update([u8::from(*supervised)]);
    }
}

fn describe(faults: &[RowFault], more: u64) -> String {
    let mut said: Vec<String> = faults.iter().map(|fault| fault.message.clone()).collect();
    if more > 0 {
        said.push(format!("and {more} more faulty lines"));
    }
    said.join("; ")
}

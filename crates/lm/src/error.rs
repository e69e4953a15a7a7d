//! What can go wrong between files on disk and a model in memory.

use std::io;
use std::path::{Path, PathBuf};

/// A base model or an adapter could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model is of a family this crate does not implement.
    #[error("architecture `{0}` is not supported (supported: llama, mistral, qwen2, qwen3)")]
    UnsupportedArchitecture(String),
    /// The model's positions are scaled in a way this crate does not implement.
    #[error("rope scaling `{0}` is not supported (supported: default, linear, llama3)")]
    UnsupportedRope(String),
    /// `config.json` says something that cannot be, or asks for something absurd.
    #[error("config.json: `{key}` {what}")]
    BadConfig { key: &'static str, what: String },
    /// A directory lacks a file that a base model or an adapter consists of.
    #[error("`{}` is missing", .0.display())]
    MissingFile(PathBuf),
    /// A path holds no base model, or not exactly one.
    #[error("`{}` {what}", path.display())]
    NotABaseModel { path: PathBuf, what: &'static str },
    /// A GGUF file's tokenizer is of a kind that cannot be rebuilt from its metadata.
    #[error(
        "tokenizer `{0}` is not supported (supported: gpt2 with gpt-2, smollm, qwen2 or llama-bpe); \
         a tokenizer.json beside the GGUF file would be used instead"
    )]
    UnsupportedTokenizer(String),
    /// A folder to write to holds something already.
    #[error("`{}` is not empty; name a folder that does not exist yet", .0.display())]
    Occupied(PathBuf),
    /// A file to write is there already.
    #[error("`{}` exists already; name a file that does not exist yet", .0.display())]
    Exists(PathBuf),
    /// GGUF, or what reads it, has no way to say what the model or adapter is.
    #[error("it cannot be written as GGUF: {0}")]
    NotGguf(String),
    /// A tensor holds a number too large for the type it should be written in.
    #[error("tensor `{name}` holds a value too large for {dtype}; write it as bf16 or f32")]
    TooLarge { name: String, dtype: &'static str },
    /// The files lack a tensor that the configuration implies.
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    /// The files hold a tensor that the configuration does not imply.
    #[error("tensor `{0}` is not part of the model that the configuration describes")]
    UnexpectedTensor(String),
    /// The same tensor name occurs twice.
    #[error("tensor `{0}` occurs twice")]
    DuplicateTensor(String),
    /// A tensor has another shape than the configuration implies.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    WrongShape {
        name: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    /// A tensor is stored in a type this crate does not read.
    #[error("tensor `{name}` is stored as {dtype}, which is not supported")]
    UnsupportedDtype { name: String, dtype: String },
    /// A tensor holds an infinity or a NaN.
    #[error("tensor `{0}` holds a value that is not finite")]
    NonFinite(String),
    /// A matrix was to be kept in the blocks of its file, which has none.
    #[error(
        "tensor `{0}` is not in a GGUF file, so there are no blocks to keep; quantise it to nf4, or \
         name a base model in GGUF"
    )]
    NotInBlocks(String),
    /// A file contradicts itself or its format.
    #[error("`{}` is corrupt: {what}", file.display())]
    Corrupt { file: PathBuf, what: String },
    /// A file's header is larger than any honest one.
    #[error("`{}` has a header of {size_bytes} bytes, more than the {limit_bytes} allowed", file.display())]
    HeaderTooLarge {
        file: PathBuf,
        size_bytes: u64,
        limit_bytes: u64,
    },
    /// A file names more tensors than any honest one.
    #[error("`{}` names more than {limit} tensors", file.display())]
    TooManyTensors { file: PathBuf, limit: usize },
    /// An adapter was made for another base model or with settings that contradict its tensors.
    #[error("the adapter does not fit: {0}")]
    AdapterMismatch(String),
    /// Reading or writing failed.
    #[error("cannot access `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A JSON document could not be parsed.
    #[error("`{}` is not the JSON it should be", file.display())]
    Json {
        file: PathBuf,
        source: serde_json::Error,
    },
}

impl LoadError {
    /// For `map_err`: an I/O failure on `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// `file` contradicts itself or its format.
    pub(crate) fn corrupt(file: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            what: what.into(),
        }
    }
}

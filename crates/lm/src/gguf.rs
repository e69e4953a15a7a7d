//! GGUF files as base models: weights under their Hugging Face names, and the JSON documents of a
//! Hugging Face folder made from the metadata.
//!
//! The file is read by seeking, a piece at a time; it is neither mapped nor held in memory. Why
//! the reader is our own is told in `docs/adr/0002-own-gguf-reader.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::blocks::GgufBlocks;
use crate::error::LoadError;
use crate::weights::WeightSource;

mod config_document;
mod dequantize;
mod header;
mod metadata;
mod names;
mod tensor_info;
pub(crate) mod tokenizer_document;
mod tokenizer_metadata;

pub(crate) use dequantize::{RUN, read};
use metadata::Metadata;
use names::HuggingFaceName;
use tensor_info::TensorInfo;
pub(crate) use tensor_info::TensorType;

/// Blocks read at a time: at most about a megabyte of file.
const CHUNK_BLOCKS: usize = 4_096;
/// Values of the rows that are read at a time, unless a single row has more.
const CHUNK_VALUES: usize = 1 << 20;

/// An open GGUF file.
#[derive(Debug)]
pub struct GgufSource {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// By Hugging Face name.
    tensors: BTreeMap<String, Tensor>,
    /// What Llama 3 divides its rotary frequencies by, if the file has such a tensor.
    rope_divisors: Option<TensorInfo>,
}

#[derive(Debug)]
struct Tensor {
    info: TensorInfo,
    /// Number of heads whose rows are interleaved; `None` when rows are in order.
    interleaved_heads: Option<usize>,
}

impl GgufSource {
    /// Opens `path`, checks its header and that this is a model we can read; reads no weights.
    ///
    /// # Errors
    /// When the file cannot be read, its header is too large or contradicts itself or the file's
    /// size, the architecture or a tensor's type is not supported, or a tensor is none of a
    /// supported model's.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let mut file = File::open(path).map_err(LoadError::io(path))?;
        let header = header::read(path, &mut file)?;
        let metadata = header.metadata;
        let heads = config_document::InterleavedHeads::of(&metadata)?;
        let mut tensors = BTreeMap::new();
        let mut rope_divisors = None;
        for (name, info) in header.tensors {
            match names::hugging_face(&name) {
                Some(HuggingFaceName::Tensor(hugging_face)) => {
                    let interleaved_heads = heads.for_tensor(&hugging_face);
                    check_rows(&metadata, &name, &info, interleaved_heads)?;
                    tensors.insert(
                        hugging_face,
                        Tensor {
                            info,
                            interleaved_heads,
                        },
                    );
                }
                Some(HuggingFaceName::RopeDivisors) => rope_divisors = Some(info),
                None => return Err(LoadError::UnexpectedTensor(name)),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
            tensors,
            rope_divisors,
        })
    }

    /// Names and shapes of all tensors, sorted by name.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors
            .iter()
            .map(|(name, t)| (name.clone(), t.info.shape.clone()))
            .collect()
    }

    /// `config.json` from the metadata.
    ///
    /// # Errors
    /// When a needed key is missing or of the wrong type, or the model is one that we cannot
    /// describe.
    pub fn config_json(&mut self) -> Result<Value, LoadError> {
        let divisors = match self.rope_divisors.clone() {
            Some(info) => Some(self.read(&info)?),
            None => None,
        };
        let shape_of = |name: &str| self.tensors.get(name).map(|t| t.info.shape.as_slice());
        config_document::build(&self.metadata, &shape_of, divisors.as_deref())
    }

    /// `tokenizer.json` from the metadata.
    ///
    /// # Errors
    /// When the tokenizer is of a kind that we cannot write down, or contradicts itself.
    pub fn tokenizer_json(&self) -> Result<Value, LoadError> {
        tokenizer_metadata::tokenizer_json(&self.metadata)
    }

    /// `tokenizer_config.json` from the metadata.
    ///
    /// # Errors
    /// When a special token's id is not in the vocabulary, or a key is of the wrong type.
    pub fn tokenizer_config_json(&self) -> Result<Value, LoadError> {
        tokenizer_metadata::tokenizer_config_json(&self.metadata)
    }

    /// `generation_config.json` from the metadata.
    ///
    /// # Errors
    /// When a key is of the wrong type.
    pub fn generation_config_json(&self) -> Result<Value, LoadError> {
        tokenizer_metadata::generation_config_json(&self.metadata)
    }

    /// All values of one tensor in the order of the file.
    fn read(&mut self, info: &TensorInfo) -> Result<Vec<f32>, LoadError> {
        // The header check has found the product, and four times it, to be addressable, and the
        // file to be long enough for it.
        let mut all = Vec::with_capacity(info.shape.iter().product());
        let piece = CHUNK_BLOCKS * info.kind.block_len();
        self.read_pieces(info, piece, |values| all.extend_from_slice(values))?;
        Ok(all)
    }

    /// As [`Self::read`], `n` values at a time, which are whole blocks.
    fn read_pieces(
        &mut self,
        info: &TensorInfo,
        n: usize,
        mut take: impl FnMut(&[f32]),
    ) -> Result<(), LoadError> {
        let path = &self.path;
        self.file
            .seek(SeekFrom::Start(info.offset))
            .map_err(LoadError::io(path))?;
        let bytes = |values: usize| values / info.kind.block_len() * info.kind.block_bytes();
        let mut left: usize = info.shape.iter().product();
        let mut values = vec![0.0; n.min(left)];
        let mut raw = vec![0; bytes(values.len())];
        while left > 0 {
            let part = &mut values[..n.min(left)];
            let raw = &mut raw[..bytes(part.len())];
            self.file.read_exact(raw).map_err(LoadError::io(path))?;
            dequantize::dequantize(info.kind, raw, part);
            take(part);
            left -= part.len();
        }
        Ok(())
    }

    /// Where tensor `name` lies, and the heads whose rows are interleaved.
    fn find(&self, name: &str, shape: &[usize]) -> Result<(TensorInfo, Option<usize>), LoadError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| LoadError::MissingTensor(name.to_owned()))?;
        if tensor.info.shape != shape {
            return Err(LoadError::WrongShape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: tensor.info.shape.clone(),
            });
        }
        Ok((tensor.info.clone(), tensor.interleaved_heads))
    }
}

impl WeightSource for GgufSource {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let (info, heads) = self.find(name, shape)?;
        let values = self.read(&info)?;
        Ok(match heads {
            Some(n_heads) => in_order(&values, info.shape[0], n_heads),
            None => values,
        })
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn rows(
        &mut self,
        name: &str,
        shape: [usize; 2],
        take: &mut dyn FnMut(&[f32]),
    ) -> Result<(), LoadError> {
        let (info, heads) = self.find(name, &shape)?;
        if heads.is_some() {
            // q and k are the smallest matrices.
            take(&self.tensor(name, &shape)?);
            return Ok(());
        }
        let n_rows = (CHUNK_VALUES / shape[1]).max(1);
        self.read_pieces(&info, n_rows * shape[1], take)
    }

    fn blocks(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<GgufBlocks>, LoadError> {
        let (info, heads) = self.find(name, &shape)?;
        let path = &self.path;
        let n_bytes = usize::try_from(info.size_bytes)
            .map_err(|_| LoadError::corrupt(path, "a tensor is larger than memory"))?;
        let mut bytes = vec![0; n_bytes];
        self.file
            .seek(SeekFrom::Start(info.offset))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(LoadError::io(path))?;
        if let Some(n_heads) = heads {
            bytes = in_order(&bytes, info.shape[0], n_heads);
        }
        Ok(Some(GgufBlocks::new(info.kind, shape[1], bytes)))
    }
}

/// Interleaved rows come in pairs per head.
fn check_rows(
    metadata: &Metadata,
    name: &str,
    info: &TensorInfo,
    heads: Option<usize>,
) -> Result<(), LoadError> {
    match heads {
        Some(heads) if !info.shape[0].is_multiple_of(2 * heads) => {
            let what = format!(
                "tensor `{name}` has {} rows for {heads} heads",
                info.shape[0]
            );
            Err(metadata.corrupt(what))
        }
        _ => Ok(()),
    }
}

/// Undoes what the converter does to Llama's q and k: rotary embedding turns pairs of rows, which
/// GGUF keeps side by side and Hugging Face half a head apart. A row may be values or the bytes of its blocks.
///
/// # Shapes
/// `values`: `[n_rows, anything]`, and the same out.
fn in_order<T: Copy>(values: &[T], n_rows: usize, n_heads: usize) -> Vec<T> {
    let row_len = values.len() / n_rows;
    let head_dim = n_rows / n_heads;
    let mut ordered = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * row_len) {
        for part in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = 2 * pair + part;
                ordered.extend_from_slice(&head[row * row_len..(row + 1) * row_len]);
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn rows_of_a_head_go_back_to_its_halves() {
        // Two heads of four rows, one column; the file has each head's rows as 0 2 1 3.
        let stored = [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0];
        let ordered = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
        assert_eq!(in_order(&stored, 8, 2), ordered);
    }

    #[test]
    fn rows_stay_whole() {
        let stored = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
        let ordered = [0.0, 0.5, 2.0, 2.5, 1.0, 1.5, 3.0, 3.5];
        assert_eq!(in_order(&stored, 4, 1), ordered);
    }
}

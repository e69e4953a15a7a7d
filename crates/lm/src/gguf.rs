//! GGUF files as base models: weights under their Hugging Face names, and the JSON documents of a
//! Hugging Face folder made from the metadata.
//!
//! The file is read by seeking, a piece at a time; it is neither mapped nor held in memory. Why
//! the reader is our own is told in `docs/adr/0002-own-gguf-reader.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::blocks::GgufBlocks;
use crate::error::LoadError;
use crate::safetensors_file::Dtype;
use crate::weights::WeightSource;

pub(crate) mod config_document;
mod dequantize;
mod header;
mod metadata;
pub(crate) mod model_metadata;
pub(crate) mod names;
mod quantize;
pub(crate) mod rows;
mod tensor_info;
pub(crate) mod tokenizer_document;
pub(crate) mod tokenizer_keys;
mod tokenizer_metadata;
pub(crate) mod write;
mod writer;

pub use quantize::GgufDtype;
pub use write::MetadataValue;
pub(crate) use writer::GgufFile;

pub(crate) use dequantize::{RUN, read};
use metadata::Metadata;
use names::HuggingFaceName;
use tensor_info::TensorInfo;
pub(crate) use tensor_info::TensorType;
use write::MetadataList;

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
    /// Where each metadata value lies in the file.
    spans: Vec<(String, Range<u64>)>,
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
            spans: header.spans,
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

    /// How the tensor of that Hugging Face name is stored, f16 when it is quantised; `None` when
    /// there is none.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        Some(match self.tensors.get(name)?.info.kind {
            TensorType::F32 => Dtype::F32,
            TensorType::Bf16 => Dtype::Bf16,
            _ => Dtype::F16,
        })
    }

    /// All metadata as it stands in the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn raw_metadata(&mut self) -> Result<MetadataList, LoadError> {
        let (path, file) = (&self.path, &mut self.file);
        let mut read = |span: &Range<u64>| {
            file.seek(SeekFrom::Start(span.start))?;
            let mut code = [0; 4];
            file.read_exact(&mut code)?;
            let mut bytes = Vec::new();
            let rest = span.end - span.start - code.len() as u64;
            file.by_ref().take(rest).read_to_end(&mut bytes)?;
            Ok(MetadataValue::Raw(u32::from_le_bytes(code), bytes))
        };
        self.spans
            .iter()
            .map(|(key, span)| Ok((key.clone(), read(span).map_err(LoadError::io(path))?)))
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
            Some(n_heads) => rows::in_order(&values, info.shape[0], n_heads),
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
            bytes = rows::in_order(&bytes, info.shape[0], n_heads);
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

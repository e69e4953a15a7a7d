//! A base model on disk: a folder in Hugging Face layout, a folder with one GGUF file, or a GGUF
//! file alone.
//!
//! Whatever it was, past this module it is four JSON documents and a source of weights.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::ModelConfig;
use crate::device::Device;
use crate::error::LoadError;
use crate::gguf::GgufSource;
use crate::learned::Learned;
use crate::lora::Target;
use crate::merge::Merged;
use crate::precision::Precision;
use crate::safetensors_file::{Dtype, SafetensorsSource};
use crate::transformer::CausalLm;
use crate::weights::WeightSource;

mod export;
mod export_gguf;
mod fingerprint;

/// The model's sizes and kind.
pub const CONFIG_FILE: &str = "config.json";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Special tokens and chat template.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// Ids that end generation.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";
/// A chat template too long for `tokenizer_config.json`; it wins over the one there.
pub const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";

/// Largest JSON document we read. The tokenizer of a vocabulary of 250,000 takes about 30 MB.
const MAX_DOCUMENT_BYTES: u64 = 128 << 20;

/// An opened base model. Documents are in memory, weights still on disk.
#[derive(Debug)]
pub struct BaseFiles {
    config: ModelConfig,
    config_json: Vec<u8>,
    tokenizer_json: Vec<u8>,
    tokenizer_config_json: Vec<u8>,
    generation_config_json: Vec<u8>,
    chat_template: Option<String>,
    format: WeightFormat,
    weight_files: Vec<PathBuf>,
}

/// How the weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    Safetensors,
    Gguf,
}

impl BaseFiles {
    /// Opens the base model at `path`: a folder, or a `.gguf` file. What a GGUF file's folder lacks
    /// of the documents is made from its metadata.
    ///
    /// # Errors
    /// When there is no model at `path` or more than one, a file is missing (it is named) or
    /// corrupt, or the model is of a kind that is not supported.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let metadata = fs::metadata(path).map_err(LoadError::io(path))?;
        if !metadata.is_dir() {
            return if has_extension(path, "gguf") {
                Self::open_gguf(path, None)
            } else {
                let what = "is neither a folder nor a `.gguf` file";
                Err(LoadError::NotABaseModel {
                    path: path.to_owned(),
                    what,
                })
            };
        }
        let (safetensors, ggufs) = find_weight_files(path)?;
        match (safetensors.as_slice(), ggufs.as_slice()) {
            ([], []) => {
                let what = "holds neither a `.safetensors` nor a `.gguf` file";
                Err(LoadError::NotABaseModel {
                    path: path.to_owned(),
                    what,
                })
            }
            ([], [gguf]) => Self::open_gguf(gguf, Some(path)),
            ([_, ..], []) => Self::open_hugging_face(path, safetensors),
            ([], [_, _, ..]) => {
                let what = "holds more than one `.gguf` file; name one of them";
                Err(LoadError::NotABaseModel {
                    path: path.to_owned(),
                    what,
                })
            }
            ([_, ..], [_, ..]) => {
                let what = "holds `.safetensors` and `.gguf` files; keep one kind";
                Err(LoadError::NotABaseModel {
                    path: path.to_owned(),
                    what,
                })
            }
        }
    }

    fn open_hugging_face(folder: &Path, weight_files: Vec<PathBuf>) -> Result<Self, LoadError> {
        let required = |name: &str| {
            find_document(folder, name)?.ok_or_else(|| LoadError::MissingFile(folder.join(name)))
        };
        let config_json = required(CONFIG_FILE)?;
        let generation_config_json = match find_document(folder, GENERATION_CONFIG_FILE)? {
            Some(bytes) => bytes,
            None => pretty(&generation_config_from(&config_json)),
        };
        let base = Self {
            config: ModelConfig::from_json(&config_json)?,
            config_json,
            tokenizer_json: required(TOKENIZER_FILE)?,
            tokenizer_config_json: required(TOKENIZER_CONFIG_FILE)?,
            generation_config_json,
            chat_template: find_chat_template(folder)?,
            format: WeightFormat::Safetensors,
            weight_files,
        };
        // A lying header is better met now than in the middle of a job.
        SafetensorsSource::open(&base.weight_files)?;
        Ok(base)
    }

    fn open_gguf(file: &Path, folder: Option<&Path>) -> Result<Self, LoadError> {
        let mut source = GgufSource::open(file)?;
        let sidecar = |name: &str| match folder {
            Some(folder) => find_document(folder, name),
            None => Ok(None),
        };
        let config_json = match sidecar(CONFIG_FILE)? {
            Some(bytes) => bytes,
            None => pretty(&source.config_json()?),
        };
        let tokenizer_json = match sidecar(TOKENIZER_FILE)? {
            Some(bytes) => bytes,
            None => serde_json::to_vec(&source.tokenizer_json()?).expect("values serialise"),
        };
        let tokenizer_config_json = match sidecar(TOKENIZER_CONFIG_FILE)? {
            Some(bytes) => bytes,
            None => pretty(&source.tokenizer_config_json()?),
        };
        let generation_config_json = match sidecar(GENERATION_CONFIG_FILE)? {
            Some(bytes) => bytes,
            None => pretty(&source.generation_config_json()?),
        };
        Ok(Self {
            config: ModelConfig::from_json(&config_json)?,
            config_json,
            tokenizer_json,
            tokenizer_config_json,
            generation_config_json,
            chat_template: folder.map(find_chat_template).transpose()?.flatten(),
            format: WeightFormat::Gguf,
            weight_files: vec![file.to_owned()],
        })
    }

    /// The model's sizes and kind.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// `config.json`.
    pub fn config_json(&self) -> &[u8] {
        &self.config_json
    }

    /// `tokenizer.json`.
    pub fn tokenizer_json(&self) -> &[u8] {
        &self.tokenizer_json
    }

    /// `tokenizer_config.json`.
    pub fn tokenizer_config_json(&self) -> &[u8] {
        &self.tokenizer_config_json
    }

    /// `generation_config.json`; made from `config.json` when the folder has none.
    pub fn generation_config_json(&self) -> &[u8] {
        &self.generation_config_json
    }

    /// The text of `chat_template.jinja` if there is such a file: it wins over the template in
    /// `tokenizer_config.json`, which this does not look at.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The ids that end generation, from `generation_config.json`; empty when it names none.
    pub fn eos_token_ids(&self) -> Vec<u32> {
        let document: Value =
            serde_json::from_slice(&self.generation_config_json).unwrap_or_default();
        let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match &document["eos_token_id"] {
            Value::Array(ids) => ids.iter().filter_map(one).collect(),
            id => one(id).into_iter().collect(),
        }
    }

    /// The documents under their file names, as a folder beside the weights would hold them.
    pub fn documents(&self) -> Vec<(&'static str, &[u8])> {
        let mut documents = vec![
            (CONFIG_FILE, self.config_json()),
            (TOKENIZER_FILE, self.tokenizer_json()),
            (TOKENIZER_CONFIG_FILE, self.tokenizer_config_json()),
            (GENERATION_CONFIG_FILE, self.generation_config_json()),
        ];
        if let Some(template) = &self.chat_template {
            documents.push((CHAT_TEMPLATE_FILE, template.as_bytes()));
        }
        documents
    }

    /// The files that hold the weights, sorted by name.
    pub fn weight_files(&self) -> &[PathBuf] {
        &self.weight_files
    }

    /// What the matrices are stored in; f16 when they are quantised. What an export is written in when
    /// nothing else is asked for.
    ///
    /// # Errors
    /// When the weights cannot be read, or their type is not supported.
    pub fn dtype(&self) -> Result<Dtype, LoadError> {
        let source = self.source()?;
        // Embeddings and norms are often kept in another type than the rest.
        let name = Target::Q.weight_name(0);
        let dtype = match &source {
            Source::Safetensors(source) => source.dtype(&name),
            Source::Gguf(source) => source.dtype(&name),
        };
        dtype.ok_or(LoadError::MissingTensor(name))
    }

    /// How the weights are stored.
    pub fn weight_format(&self) -> WeightFormat {
        self.format
    }

    /// Reads the weights and puts the model on `device`, its matrices in numbers of `precision`.
    ///
    /// # Errors
    /// When a tensor is missing, has a shape or type that does not fit, or cannot be read.
    pub fn load(&self, device: &Device, precision: Precision) -> Result<CausalLm, LoadError> {
        let mut source = self.source()?;
        CausalLm::from_source(&self.config, source.as_weights(), device, precision)
    }

    /// Opens the weights for reading.
    fn source(&self) -> Result<Source, LoadError> {
        Ok(match self.format {
            WeightFormat::Safetensors => {
                Source::Safetensors(SafetensorsSource::open(&self.weight_files)?)
            }
            WeightFormat::Gguf => Source::Gguf(GgufSource::open(&self.weight_files[0])?),
        })
    }
}

/// Weights of either format.
enum Source {
    Safetensors(SafetensorsSource),
    Gguf(GgufSource),
}

impl Source {
    fn as_weights(&mut self) -> &mut dyn WeightSource {
        match self {
            Self::Safetensors(source) => source,
            Self::Gguf(source) => source,
        }
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::Safetensors(source) => source.tensors(),
            Self::Gguf(source) => source.tensors(),
        }
    }
}

/// Lets `read` see the weights of `source`, with `adapter` in them if there is one.
fn weights(
    source: &mut Source,
    learned: Option<&Learned>,
    read: &mut dyn FnMut(&mut dyn WeightSource) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    match learned {
        Some(Learned::Adapter(adapter)) => read(&mut Merged::new(source.as_weights(), adapter)?),
        Some(Learned::Full(weights)) => read(&mut weights.over(source.as_weights())),
        None => read(source.as_weights()),
    }
}

/// The safetensors files and the GGUF files in `folder`, each sorted by name.
fn find_weight_files(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), LoadError> {
    let (mut safetensors, mut ggufs) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(LoadError::io(folder))? {
        let path = entry.map_err(LoadError::io(folder))?.path();
        if has_extension(&path, "safetensors") {
            safetensors.push(path);
        } else if has_extension(&path, "gguf") {
            ggufs.push(path);
        }
    }
    safetensors.sort_unstable();
    ggufs.sort_unstable();
    Ok((safetensors, ggufs))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// The bytes of a document, `None` when there is no such file.
fn find_document(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
    let path = folder.join(name);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LoadError::io(&path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(LoadError::io(&path))?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(LoadError::corrupt(
            &path,
            "it is larger than any honest document",
        ));
    }
    Ok(Some(bytes))
}

fn find_chat_template(folder: &Path) -> Result<Option<String>, LoadError> {
    let Some(bytes) = find_document(folder, CHAT_TEMPLATE_FILE)? else {
        return Ok(None);
    };
    let path = folder.join(CHAT_TEMPLATE_FILE);
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| LoadError::corrupt(&path, "it is not UTF-8"))
}

/// What transformers falls back to as well: the ids in `config.json`.
fn generation_config_from(config_json: &[u8]) -> Value {
    let config: Value = serde_json::from_slice(config_json).unwrap_or_default();
    let mut document = json!({});
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(value) = config.get(key).filter(|value| !value.is_null()) {
            document[key] = value.clone();
        }
    }
    document
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("values serialise");
    bytes.push(b'\n');
    bytes
}

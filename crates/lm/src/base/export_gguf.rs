//! Writes a base model, with an adapter in it if there is one, as one GGUF file.

use std::path::Path;

use serde_json::Value;

use super::{BaseFiles, WeightFormat, weights};
use crate::error::LoadError;
use crate::gguf::config_document::InterleavedHeads;
use crate::gguf::tokenizer_keys::{self, TokenizerDocuments};
use crate::gguf::write::MetadataList;
use crate::gguf::{GgufDtype, GgufFile, GgufSource, model_metadata, names, rows};
use crate::learned::Learned;
use crate::staging;
use crate::weights::WeightSource;

/// The head; in a model that ties it to the embedding a second copy of that.
const HEAD: &str = "lm_head.weight";
/// Tables that old Hugging Face files carry and everyone computes.
const COMPUTED: &str = ".rotary_emb.inv_freq";

/// Where the values of one tensor come from.
enum Content {
    /// The tensor of that Hugging Face name.
    Weight {
        name: String,
        shape: Vec<usize>,
        interleaved_heads: Option<usize>,
    },
    /// The configuration.
    RopeDivisors(Vec<f32>),
}

impl BaseFiles {
    /// Writes the model to the file `out`, which must not exist yet; it is whole or absent. With
    /// something `learned`, its weights are those that training made of them. No more than one tensor is in
    /// memory at a time.
    ///
    /// The metadata is made from the documents; that of a base which is a GGUF file is carried over.
    ///
    /// # Errors
    /// [`LoadError::NotGguf`] when the tokenizer or the model is one that the format cannot describe;
    /// when `out` exists, a tensor cannot be read or does not fit `dtype`, or writing fails.
    pub fn export_gguf(
        &self,
        out: &Path,
        learned: Option<&Learned>,
        dtype: GgufDtype,
    ) -> Result<(), LoadError> {
        let mut source = self.source()?;
        let tensors = source.tensors();
        let file = self.planned(out, &tensors, dtype)?;
        let mut read = |weights: &mut dyn WeightSource| {
            staging::file(out, |path| {
                file.write(path, |content| content.values(weights))
            })
        };
        weights(&mut source, learned, &mut read)
    }

    fn planned(
        &self,
        out: &Path,
        tensors: &[(String, Vec<usize>)],
        dtype: GgufDtype,
    ) -> Result<GgufFile<Content>, LoadError> {
        let mut file = GgufFile::new(self.gguf_metadata(out, dtype)?);
        let heads = InterleavedHeads::of_model(&self.config);
        if let Some(divisors) = model_metadata::rope_divisors(&self.config)? {
            let (name, shape) = (names::ROPE_DIVISORS.to_owned(), [divisors.len()]);
            file.add(name, &shape, dtype, Content::RopeDivisors(divisors))?;
        }
        for (name, shape) in tensors {
            if (name == HEAD && self.config.tie_word_embeddings) || name.ends_with(COMPUTED) {
                continue;
            }
            let gguf_name =
                names::gguf(name).ok_or_else(|| LoadError::UnexpectedTensor(name.clone()))?;
            let content = Content::Weight {
                name: name.clone(),
                shape: shape.clone(),
                interleaved_heads: heads.for_tensor(name),
            };
            file.add(gguf_name, shape, dtype, content)?;
        }
        Ok(file)
    }

    fn gguf_metadata(&self, out: &Path, dtype: GgufDtype) -> Result<MetadataList, LoadError> {
        if let Some(mut list) = self.carried_metadata()? {
            model_metadata::set_dtype(&mut list, dtype);
            return Ok(list);
        }
        let name = out.file_stem().unwrap_or_default().to_string_lossy();
        let mut list = model_metadata::general(&self.config, "model", &name, dtype);
        list.extend(model_metadata::model(&self.config)?);
        let [tokenizer, tokenizer_config] =
            [self.tokenizer_json(), self.tokenizer_config_json()].map(parsed);
        list.extend(tokenizer_keys::keys(&TokenizerDocuments {
            tokenizer: &tokenizer,
            tokenizer_config: &tokenizer_config,
            chat_template: self.chat_template(),
            eos_token_ids: &self.eos_token_ids(),
            vocab_size: self.config.vocab_size,
        })?);
        Ok(list)
    }

    /// The metadata of a base that is a GGUF file, unless documents beside it say something else.
    fn carried_metadata(&self) -> Result<Option<MetadataList>, LoadError> {
        if self.format != WeightFormat::Gguf || self.chat_template.is_some() {
            return Ok(None);
        }
        let mut source = GgufSource::open(&self.weight_files[0])?;
        let from_file = [
            source.config_json(),
            source.tokenizer_json(),
            source.tokenizer_config_json(),
            source.generation_config_json(),
        ];
        let in_use = self.documents().into_iter().map(|(_, bytes)| parsed(bytes));
        if !from_file
            .into_iter()
            .zip(in_use)
            .all(|(document, used)| document.is_ok_and(|document| document == used))
        {
            return Ok(None);
        }
        let mut list = source.raw_metadata()?;
        // What speaks of the other file's layout.
        list.retain(|(key, _)| key != "general.alignment" && !key.starts_with("split."));
        Ok(Some(list))
    }
}

impl Content {
    fn values(&self, weights: &mut dyn WeightSource) -> Result<Vec<f32>, LoadError> {
        match self {
            Self::RopeDivisors(divisors) => Ok(divisors.clone()),
            Self::Weight {
                name,
                shape,
                interleaved_heads,
            } => {
                let values = weights.tensor(name, shape)?;
                Ok(match interleaved_heads {
                    Some(n_heads) => rows::interleaved(&values, shape[0], *n_heads),
                    None => values,
                })
            }
        }
    }
}

fn parsed(document: &[u8]) -> Value {
    serde_json::from_slice(document).unwrap_or_default()
}

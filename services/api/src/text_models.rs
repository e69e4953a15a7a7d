//! The textual halves of base models: tokenizer and chat template, and the sizes that costs follow from.
//!
//! No weight is read. The last few that were asked for stay in memory; a tokenizer takes some ten megabytes.

use std::sync::{Arc, Mutex, PoisonError};

use artifacts::{ArtifactError, SharedObjects};
use domain::BaseModelId;
use domain::cost::ModelShape;
use serde_json::Value;
use store::base_models::BaseModel;
use text::TextModel;
use tokio::sync::Semaphore;

use crate::error::{ApiError, ErrorCode};

/// How many stay in memory.
const MAX_KEPT: usize = 8;
/// The tokenizer of a vocabulary of 250,000 takes about 30 MB.
const MAX_DOCUMENT_BYTES: u64 = 128 << 20;
/// Requests that tokenise at the same time; others wait for their turn. The rest of the machine answers requests.
const MAX_AT_WORK: usize = 2;

/// The text models of an installation. Cloning shares them.
#[derive(Clone)]
pub struct TextModels(Arc<Shared>);

struct Shared {
    objects: SharedObjects,
    /// The latest last.
    kept: Mutex<Vec<(BaseModelId, Arc<BaseText>)>>,
    at_work: Semaphore,
}

/// What is known of a base model without its weights.
pub(crate) struct BaseText {
    /// The tokenizer and the chat template.
    pub(crate) text: TextModel,
    /// Its sizes. Windows of attention are left out, which makes it cost more than it does.
    pub(crate) shape: ModelShape,
}

impl TextModels {
    /// None yet; they are fetched from `objects`.
    pub fn new(objects: SharedObjects) -> Self {
        Self(Arc::new(Shared {
            objects,
            kept: Mutex::default(),
            at_work: Semaphore::new(MAX_AT_WORK),
        }))
    }

    /// Does `work` with the base model's text, where it holds up nobody.
    ///
    /// # Errors
    /// The base model has no tokenizer of its own, storage is away, or what `work` says.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        base: &BaseModel,
        work: impl FnOnce(&BaseText) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.0.at_work.acquire().await;
        let turn = turn.map_err(ApiError::internal)?;
        let base = match self.kept(base.id) {
            Some(base) => base,
            None => self.load(base).await?,
        };
        let done = tokio::task::spawn_blocking(move || work(&base)).await;
        drop(turn);
        match done {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(ApiError::internal(error)),
        }
    }

    fn kept(&self, id: BaseModelId) -> Option<Arc<BaseText>> {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.iter().position(|(kept, _)| *kept == id)?;
        let found = kept.remove(index);
        let text = found.1.clone();
        kept.push(found);
        Some(text)
    }

    async fn load(&self, base: &BaseModel) -> Result<Arc<BaseText>, ApiError> {
        let documents = Documents::fetch(&self.0.objects, base).await?;
        let (name, for_shape) = (base.name.clone(), base.clone());
        let loaded = tokio::task::spawn_blocking(move || documents.read(&for_shape)).await;
        let loaded = Arc::new(loaded.map_err(ApiError::internal)??);
        tracing::info!(base_model = name, "Loaded the tokenizer of `{name}`");
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(id, _)| *id != base.id);
        if kept.len() == MAX_KEPT {
            kept.remove(0);
        }
        kept.push((base.id, loaded.clone()));
        Ok(loaded)
    }
}

struct Documents {
    tokenizer: Vec<u8>,
    tokenizer_config: Vec<u8>,
    chat_template: Option<Vec<u8>>,
    config: Option<Vec<u8>>,
    generation_config: Option<Vec<u8>>,
}

impl Documents {
    async fn fetch(objects: &SharedObjects, base: &BaseModel) -> Result<Self, ApiError> {
        let get = async |name: &str| -> Result<Option<Vec<u8>>, ArtifactError> {
            if !base.files.iter().any(|file| file.name == name) {
                return Ok(None);
            }
            let bytes = objects
                .get_base_bytes(base.id, name, MAX_DOCUMENT_BYTES)
                .await?;
            Ok(Some(bytes.to_vec()))
        };
        let missing = || {
            let message = format!(
                "The model `{}` has its tokenizer inside its weights, which only a worker reads; \
                 create the job, and it says what it finds.",
                base.name
            );
            ApiError::invalid("model", message).code(ErrorCode::TokenizerNotAvailable)
        };
        Ok(Self {
            tokenizer: get("tokenizer.json").await?.ok_or_else(missing)?,
            tokenizer_config: get("tokenizer_config.json").await?.ok_or_else(missing)?,
            chat_template: get("chat_template.jinja").await?,
            config: get("config.json").await?,
            generation_config: get("generation_config.json").await?,
        })
    }

    fn read(self, base: &BaseModel) -> Result<BaseText, ApiError> {
        let template = self.chat_template.map(String::from_utf8).transpose();
        let template = template.map_err(ApiError::internal)?;
        let text =
            TextModel::from_parts(&self.tokenizer, &self.tokenizer_config, template.as_deref());
        let ends = self.generation_config.or_else(|| self.config.clone());
        let config = self
            .config
            .and_then(|json| serde_json::from_slice(&json).ok());
        Ok(BaseText {
            text: text
                .map_err(ApiError::internal)?
                .with_generation_config(&ends.unwrap_or_default()),
            shape: shape(base, &config.unwrap_or(Value::Null)),
        })
    }
}

/// What the row does not say of its sizes is in its `config.json`, with Hugging Face's defaults.
fn shape(base: &BaseModel, config: &Value) -> ModelShape {
    let head_dim = config["head_dim"]
        .as_u64()
        .filter(|n| *n <= base.d_model)
        .unwrap_or(base.d_model / base.n_heads.max(1));
    ModelShape {
        vocabulary: base.vocab_size,
        width: base.d_model,
        mlp_width: base.d_ff,
        query_width: base.n_heads * head_dim,
        key_width: base.n_kv_heads * head_dim,
        tied_head: config["tie_word_embeddings"].as_bool().unwrap_or(false),
        windows: vec![None; usize::try_from(base.n_layers).unwrap_or(0).min(10_000)],
    }
}

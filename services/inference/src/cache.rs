//! Base models and adapters in memory, fetched from S3 when first asked for.
//!
//! What is kept here may be anyone's: whoever asks has resolved the name first, in the project's own transaction.

mod shelf;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use artifacts::{ArtifactError, ObjectStore, keys};
use domain::BaseModelId;
use lm::base::BaseFiles;
use lm::{Adapter, CausalLm, Device, ModelConfig};
use store::base_models::BaseModel;
use text::TextModel;

use crate::config::Limits;
use crate::error::ChatError;
use shelf::Shelf;

/// The files of an adapter, as PEFT writes them.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// A base model, ready to answer.
pub(crate) struct LoadedBase {
    /// The weights.
    pub(crate) model: CausalLm,
    /// The tokenizer and the chat template.
    pub(crate) text: TextModel,
    /// The tokens it can take in, prompt and answer together.
    pub(crate) context_length: usize,
}

/// What is loaded, and how to load more.
pub(crate) struct ModelCache {
    loader: Loader,
    bases: Shelf<BaseModelId, LoadedBase>,
    adapters: Shelf<String, Adapter>,
}

/// What loading needs. Cheap to clone, because loads outlive the request that began them.
#[derive(Clone)]
struct Loader {
    objects: ObjectStore,
    dir: PathBuf,
    device: Device,
}

impl ModelCache {
    /// An empty cache that keeps downloads of base models below `dir`.
    pub(crate) fn new(objects: ObjectStore, dir: PathBuf, device: Device, limits: &Limits) -> Self {
        Self {
            loader: Loader {
                objects,
                dir,
                device,
            },
            bases: Shelf::new(limits.max_bases),
            adapters: Shelf::new(limits.max_adapters),
        }
    }

    /// The base model.
    ///
    /// # Errors
    ///
    /// S3 is away, or what it holds is not what was registered.
    pub(crate) async fn base(&self, base: &BaseModel) -> Result<Arc<LoadedBase>, ChatError> {
        self.bases
            .get_or_load(&base.id, self.loader.clone().load_base(base.clone()))
            .await
    }

    /// The adapter below this prefix, made for this base.
    ///
    /// # Errors
    ///
    /// S3 is away, or what it holds is no adapter for this base.
    pub(crate) async fn adapter(
        &self,
        base: &LoadedBase,
        prefix: &str,
    ) -> Result<Arc<Adapter>, ChatError> {
        let key = prefix.to_owned();
        let load = self
            .loader
            .clone()
            .load_adapter(key.clone(), base.model.config().clone());
        self.adapters.get_or_load(&key, load).await
    }
}

impl Loader {
    async fn load_base(self, base: BaseModel) -> Result<LoadedBase, ChatError> {
        let dir = self.dir.join("bases").join(base.id.to_string());
        self.objects
            .mirror(&keys::base_prefix(base.id), &base.sums(), &dir)
            .await?;
        let device = self.device;
        let name = base.name.clone();
        let loaded = blocking(move || open_base(&base, &dir, &device)).await?;
        metrics::counter!("attune_inference_base_loads_total").increment(1);
        tracing::info!(base_model = name, "Loaded base model `{name}`");
        Ok(loaded)
    }

    async fn load_adapter(self, prefix: String, config: ModelConfig) -> Result<Adapter, ChatError> {
        tokio::fs::create_dir_all(&self.dir)
            .await
            .context("creating the cache's folder")?;
        let dir = tempfile::Builder::new()
            .prefix("adapter-")
            .tempdir_in(&self.dir)
            .context("creating a folder for an adapter")?;
        for name in ADAPTER_FILES {
            self.objects
                .get_file(&format!("{prefix}{name}"), &dir.path().join(name))
                .await?;
        }
        let device = self.device;
        let adapter = blocking(move || {
            Adapter::load(dir.path(), &config, &device)
                .with_context(|| format!("loading the adapter `{prefix}`"))
        });
        let adapter = adapter.await?;
        metrics::counter!("attune_inference_adapter_loads_total").increment(1);
        Ok(adapter)
    }
}

fn open_base(base: &BaseModel, dir: &Path, device: &Device) -> anyhow::Result<LoadedBase> {
    let files = BaseFiles::open(dir).with_context(|| format!("opening `{}`", base.name))?;
    let model = files
        .load(device, lm::Precision::F32)
        .with_context(|| format!("loading `{}`", base.name))?;
    let text = TextModel::from_parts(
        files.tokenizer_json(),
        files.tokenizer_config_json(),
        files.chat_template(),
    )
    .with_context(|| format!("reading the tokenizer of `{}`", base.name))?
    .with_eos_ids(&files.eos_token_ids());
    let context_length = model.config().max_position_embeddings;
    Ok(LoadedBase {
        model,
        text,
        context_length,
    })
}

/// Runs what would hold up the runtime on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| anyhow!("a thread panicked: {error}"))?
}

impl From<ArtifactError> for ChatError {
    fn from(error: ArtifactError) -> Self {
        let transient = error.is_transient();
        let cause = anyhow::Error::new(error).context("fetching the model");
        if transient {
            Self::Unavailable(cause)
        } else {
            Self::Internal(cause)
        }
    }
}

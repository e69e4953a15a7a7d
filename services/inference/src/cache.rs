//! Base models, adapters and whole fine-tuned models in memory, fetched from S3 when first asked for.
//!
//! What is kept here may be anyone's: whoever asks has resolved the name first, in the project's own transaction.

mod shelf;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use artifacts::ArtifactError;
use buckets::{BucketError, Buckets, ProjectObjects};
use domain::{BaseModelId, ProjectId};
use lm::base::BaseFiles;
use lm::{Adapter, CausalLm, Device, FullWeights, learned};
use store::Store;
use store::base_models::BaseModel;
use store::models::FineTunedModel;
use tempfile::TempDir;
use text::TextModel;

use crate::config::Limits;
use crate::error::ChatError;
use shelf::Shelf;

/// A base model, ready to answer.
pub(crate) struct LoadedBase {
    /// The weights.
    pub(crate) model: CausalLm,
    /// The tokenizer and the chat template.
    pub(crate) text: TextModel,
    /// The tokens it can take in, prompt and answer together.
    pub(crate) context_length: usize,
}

/// A fine-tuned model, ready to answer.
pub(crate) struct Tuned {
    /// The base, or all of a model whose own weights were trained.
    pub(crate) model: Arc<LoadedBase>,
    /// What runs beside it.
    pub(crate) adapter: Option<Arc<Adapter>>,
}

/// What is loaded, and how to load more.
pub(crate) struct ModelCache {
    loader: Loader,
    bases: Shelf<BaseModelId, LoadedBase>,
    adapters: Shelf<String, Adapter>,
    /// Models whose own weights were trained. Each is as large as a base.
    whole: Shelf<String, LoadedBase>,
    kinds: Shelf<String, Kind>,
}

/// What the objects of a fine-tuned model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Adapter,
    Whole,
}

/// What loading needs. Cheap to clone, because loads outlive the request that began them.
#[derive(Clone)]
struct Loader {
    store: Store,
    buckets: Buckets,
    dir: PathBuf,
    device: Device,
}

impl ModelCache {
    /// An empty cache that keeps downloads of base models below `dir`.
    pub(crate) fn new(
        (store, buckets): (Store, Buckets),
        dir: PathBuf,
        device: Device,
        limits: &Limits,
    ) -> Self {
        Self {
            loader: Loader {
                store,
                buckets,
                dir,
                device,
            },
            bases: Shelf::new(limits.max_bases),
            adapters: Shelf::new(limits.max_adapters),
            whole: Shelf::new(limits.max_bases),
            kinds: Shelf::new(limits.max_adapters),
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

    /// The folder that holds the base model's files.
    ///
    /// # Errors
    ///
    /// S3 is away, or what it holds is not what was registered.
    pub(crate) async fn folder(&self, base: &BaseModel) -> Result<PathBuf, ChatError> {
        self.loader.folder(base).await
    }

    /// The fine-tuned model, made from this base, that the project may use. Where its objects are is asked only if it
    /// is not in memory.
    ///
    /// # Errors
    ///
    /// S3 is away, or what it holds was not made from this base.
    pub(crate) async fn tuned(
        &self,
        base: Arc<LoadedBase>,
        project_id: ProjectId,
        model: &FineTunedModel,
    ) -> Result<Tuned, ChatError> {
        let (key, loader) = (model.adapter_prefix.clone(), self.loader.clone());
        let asked = Asked {
            project_id,
            model: model.clone(),
        };
        let kind = loader.clone().kind(asked.clone());
        match *self.kinds.get_or_load(&key, kind).await? {
            Kind::Adapter => {
                let load = loader.load_adapter(asked, base.clone());
                Ok(Tuned {
                    adapter: Some(self.adapters.get_or_load(&key, load).await?),
                    model: base,
                })
            }
            Kind::Whole => {
                let load = loader.load_whole(asked, base);
                Ok(Tuned {
                    adapter: None,
                    model: self.whole.get_or_load(&key, load).await?,
                })
            }
        }
    }

    /// Where the objects of the model are that the project may use.
    ///
    /// # Errors
    ///
    /// The bucket of the model's project cannot be looked up.
    pub(crate) async fn objects(
        &self,
        project_id: ProjectId,
        model: &FineTunedModel,
    ) -> Result<ProjectObjects, ChatError> {
        self.loader.objects(project_id, model).await
    }
}

/// A fine-tuned model, and the project that may use it.
#[derive(Clone)]
struct Asked {
    project_id: ProjectId,
    model: FineTunedModel,
}

impl Loader {
    async fn folder(&self, base: &BaseModel) -> Result<PathBuf, ChatError> {
        let dir = self.dir.join("bases").join(base.id.to_string());
        let shared = self.buckets.shared();
        shared.mirror_base(base.id, &base.sums(), &dir).await?;
        Ok(dir)
    }

    async fn objects(
        &self,
        project_id: ProjectId,
        model: &FineTunedModel,
    ) -> Result<ProjectObjects, ChatError> {
        let mut tx = self.store.tenant_tx(project_id).await?;
        let objects = self.buckets.of_model(&mut tx, model).await?;
        tx.commit().await?;
        // Whoever waits for a bucket that is away takes a place that another tenant could have.
        objects.check_own().await?;
        Ok(objects)
    }

    async fn load_base(self, base: BaseModel) -> Result<LoadedBase, ChatError> {
        let dir = self.folder(&base).await?;
        let device = self.device;
        let name = base.name.clone();
        let loaded = blocking(move || open_base(&base, &dir, &device)).await?;
        metrics::counter!("attune_inference_base_loads_total").increment(1);
        tracing::info!(base_model = name, "Loaded base model `{name}`");
        Ok(loaded)
    }

    async fn kind(self, asked: Asked) -> Result<Kind, ChatError> {
        let objects = self.objects(asked.project_id, &asked.model).await?;
        let weights = format!("{}{}", asked.model.adapter_prefix, learned::WEIGHTS_FILE);
        let weights = objects.head(&weights).await?;
        Ok(weights.map_or(Kind::Adapter, |_| Kind::Whole))
    }

    async fn load_adapter(self, asked: Asked, base: Arc<LoadedBase>) -> Result<Adapter, ChatError> {
        let dir = self.fetch(&asked, &learned::ADAPTER_FILES).await?;
        let prefix = asked.model.adapter_prefix;
        let load = move || {
            Adapter::load(dir.path(), base.model.config(), base.model.device())
                .with_context(|| format!("loading the adapter `{prefix}`"))
        };
        let adapter = blocking(load).await?;
        metrics::counter!("attune_inference_adapter_loads_total").increment(1);
        Ok(adapter)
    }

    async fn load_whole(
        self,
        asked: Asked,
        base: Arc<LoadedBase>,
    ) -> Result<LoadedBase, ChatError> {
        let dir = self.fetch(&asked, &[learned::WEIGHTS_FILE]).await?;
        let prefix = asked.model.adapter_prefix;
        let load = move || {
            let weights = FullWeights::load(&dir.path().join(learned::WEIGHTS_FILE), &base.model)
                .with_context(|| format!("loading the weights `{prefix}`"))?;
            Ok(LoadedBase {
                model: base.model.with_weights(&weights),
                text: base.text.clone(),
                context_length: base.context_length,
            })
        };
        let loaded = blocking(load).await?;
        metrics::counter!("attune_inference_whole_loads_total").increment(1);
        Ok(loaded)
    }

    /// A folder with these files of a fine-tuned model, for as long as it is held.
    async fn fetch(&self, asked: &Asked, names: &[&str]) -> Result<TempDir, ChatError> {
        let objects = self.objects(asked.project_id, &asked.model).await?;
        let prefix = &asked.model.adapter_prefix;
        tokio::fs::create_dir_all(&self.dir)
            .await
            .context("creating the cache's folder")?;
        let dir = tempfile::Builder::new()
            .prefix("tuned-")
            .tempdir_in(&self.dir)
            .context("creating a folder for a fine-tuned model")?;
        for name in names {
            let path = dir.path().join(name);
            objects.get_file(&format!("{prefix}{name}"), &path).await?;
        }
        Ok(dir)
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
    .with_generation_config(files.generation_config_json());
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

impl From<BucketError> for ChatError {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Store(error) => error.into(),
            BucketError::NoKeyring { .. } => Self::Internal(error.into()),
        }
    }
}

impl From<ArtifactError> for ChatError {
    fn from(error: ArtifactError) -> Self {
        if let Some(fault) = error.own_bucket() {
            let cause = error.into();
            return Self::OwnBucket { fault, cause };
        }
        let transient = error.is_transient();
        let cause = anyhow::Error::new(error).context("fetching the model");
        if transient {
            Self::Unavailable(cause)
        } else {
            Self::Internal(cause)
        }
    }
}

//! What an attempt starts from: the base model and the rows of its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::{ArtifactError, SharedObjects, keys};
use buckets::Buckets;
use dataset::Limits;
use domain::{BaseModelId, Failure, FileId, Job, TrainingConfig};
use lm::base::BaseFiles;
use lm::device::Device;
use lm::full::FullWeights;
use lm::{CausalLm, Precision};
use store::base_models::BaseModel;
use store::{Lease, Store, files};
use text::TextModel;
use training::memory::Room;
use training::{Format, Rows};

use crate::failure::{Stop, data_fault};

/// A base model in memory, with its text side.
pub(crate) struct Base {
    pub(crate) id: BaseModelId,
    pub(crate) fingerprint: String,
    /// SHA-256 of the tuned weights that stand in the place of its own, if some do.
    pub(crate) tuned_weights: Option<String>,
    pub(crate) precision: Precision,
    pub(crate) model: CausalLm,
    pub(crate) text: TextModel,
}

/// The base models this worker has fetched. The last one used stays in memory.
pub(crate) struct Bases {
    dir: PathBuf,
    loaded: Option<Arc<Base>>,
}

impl Bases {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, loaded: None }
    }

    /// The base model as these settings want it, fetched and loaded if need be.
    pub(crate) async fn get(
        &mut self,
        base: &BaseModel,
        settings: &TrainingConfig,
        shared: &SharedObjects,
        (device, max_bytes): (&Device, Option<u64>),
    ) -> Result<Arc<Base>, Stop> {
        let precision = training::settings::base_precision(settings);
        let fits = |loaded: &&Arc<Base>| loaded.id == base.id && loaded.precision == precision;
        if let Some(loaded) = self.loaded.as_ref().filter(fits) {
            return Ok(loaded.clone());
        }
        // Two bases at once may not fit.
        self.loaded = None;
        let dir = self.dir.join(base.id.to_string());
        shared.mirror_base(base.id, &base.sums(), &dir).await?;
        let (base, settings, device) = (base.clone(), settings.clone(), device.clone());
        let room = Room::now(max_bytes);
        let loaded = blocking(move || load(&base, &settings, &dir, (&device, room))).await?;
        let loaded = Arc::new(loaded);
        self.loaded = Some(loaded.clone());
        Ok(loaded)
    }

    /// `base` with the weights of the file `path`, whose SHA-256 is given, in the place of its own. It is let go itself: both
    /// at once are more than a run is estimated to take.
    pub(crate) async fn tuned(
        &mut self,
        base: Arc<Base>,
        path: PathBuf,
        sha256: String,
    ) -> Result<Arc<Base>, Stop> {
        self.loaded = None;
        blocking(move || {
            let weights = FullWeights::load(&path, &base.model)?;
            Ok(Arc::new(Base {
                id: base.id,
                fingerprint: base.fingerprint.clone(),
                tuned_weights: Some(sha256),
                precision: base.precision,
                model: base.model.with_weights(&weights),
                text: base.text.clone(),
            }))
        })
        .await
    }
}

fn load(
    base: &BaseModel,
    settings: &TrainingConfig,
    dir: &Path,
    (device, room): (&Device, Room),
) -> Result<Base, Stop> {
    let files = BaseFiles::open(dir)?;
    training::check_before_loading(files.config(), settings, device, room)?;
    let text = TextModel::from_parts(
        files.tokenizer_json(),
        files.tokenizer_config_json(),
        files.chat_template(),
    )
    .map_err(|error| Failure::bug(domain::failure::error_chain(&error)))?
    .with_generation_config(files.generation_config_json());
    let precision = training::settings::base_precision(settings);
    Ok(Base {
        id: base.id,
        fingerprint: base.fingerprint.clone(),
        tuned_weights: None,
        precision,
        model: files.load(device, precision)?,
        text,
    })
}

/// Fetches a file of the job's project and turns it into rows.
pub(crate) async fn rows(
    (store, buckets): (&Store, &Buckets),
    lease: &Lease,
    (param, file): (&'static str, FileId),
    (base, job): (&Arc<Base>, &Job),
    dir: &Path,
) -> Result<Rows, Stop> {
    let gone = || {
        let message =
            format!("{param} `{file}` was deleted before the job could read it; upload it again");
        Failure::rejected("file_not_found", Some(param), message)
    };
    let mut tx = store.tenant_tx(lease.project_id).await?;
    let row = files::find(&mut tx, file).await?.ok_or_else(gone)?;
    let objects = buckets.of(&mut tx).await?;
    tx.commit().await?;
    let path = dir.join(format!("{param}.jsonl"));
    let key = keys::file(lease.project_id, file);
    match objects.get_file_verified(&key, &path, &row.sha256).await {
        Err(ArtifactError::NotFound { .. }) => return Err(gone().into()),
        result => result?,
    };
    // A template may write the date. Every attempt of the job must write the same.
    let text = base.text.clone().with_now(job.created_at);
    let (format, scratch) = (Format::of(&job.config), dir.to_owned());
    blocking(move || {
        Rows::read(&path, &text, format, &Limits::default(), &scratch)
            .map_err(|fault| data_fault(param, &fault))
    })
    .await
}

/// Runs what computes or reads for long where it holds up nobody. A panic becomes a [`Failure::Bug`].
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Stop> + Send + 'static,
) -> Result<T, Stop> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::bug(format!("a worker thread panicked: {error}")).into()),
    }
}

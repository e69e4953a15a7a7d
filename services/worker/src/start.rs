//! Where a job starts: at its base model as it is, or at a tuned one.

use std::path::Path;
use std::sync::Arc;

use domain::config::{IncompatibleModel, TunedModel};
use domain::{Failure, Job};
use lm::full::FullWeights;
use lm::{Adapter, learned};
use store::models::ResolvedModel;

use crate::Worker;
use crate::failure::Stop;
use crate::inputs::Base;

/// What a run starts from.
pub(crate) struct Start {
    /// The base model, perhaps with tuned weights in the place of its own.
    pub(crate) base: Arc<Base>,
    /// The adapter on it.
    pub(crate) adapter: Option<Adapter>,
}

/// What the job's model adds to `base`. It is fetched into a folder below `dir`.
pub(crate) async fn of(
    worker: &mut Worker,
    job: &Job,
    model: &ResolvedModel,
    base: Arc<Base>,
    dir: &Path,
) -> Result<Start, Stop> {
    let Some(tuned) = &model.tuned else {
        return Ok(Start {
            base,
            adapter: None,
        });
    };
    let dir = dir.join("initial");
    std::fs::create_dir_all(&dir).map_err(|error| Failure::transient(&error))?;
    let mut tx = worker.store.tenant_tx(job.project_id).await?;
    let objects = worker.buckets.of_model(&mut tx, tuned).await?;
    tx.commit().await?;
    let prefix = &tuned.adapter_prefix;
    let weights_key = format!("{prefix}{}", learned::WEIGHTS_FILE);
    if objects.head(&weights_key).await?.is_none() {
        check(TunedModel::Adapter, job)?;
        for name in learned::ADAPTER_FILES {
            let key = format!("{prefix}{name}");
            objects.get_file(&key, &dir.join(name)).await?;
        }
        let adapter = adapter(job, &base, &dir)?;
        return Ok(Start {
            base,
            adapter: Some(adapter),
        });
    }
    let path = dir.join(learned::WEIGHTS_FILE);
    let stored = objects.get_file(&weights_key, &path).await?;
    let with_embeddings = FullWeights::holds_embeddings(&path)?;
    check(TunedModel::Weights { with_embeddings }, job)?;
    let base = worker.bases.tuned(base, path, stored.sha256).await?;
    Ok(Start {
        base,
        adapter: None,
    })
}

fn check(tuned: TunedModel, job: &Job) -> Result<(), Failure> {
    let checked = tuned.check(&job.config.tuning, &job.model, &job.base_model);
    checked.map_err(|misfit| {
        Failure::rejected(IncompatibleModel::CODE, Some("model"), misfit.to_string())
    })
}

fn adapter(job: &Job, base: &Base, dir: &Path) -> Result<Adapter, Stop> {
    let adapter = Adapter::load(dir, base.model.config(), base.model.device())?;
    if !training::settings::fits(&adapter, &job.config) {
        let message = format!(
            "`{}` has rank {} and its own target modules; a job that goes on from it must use the same `lora` settings",
            job.model,
            adapter.config().rank
        );
        return Err(Failure::rejected("incompatible_adapter", Some("model"), message).into());
    }
    Ok(adapter)
}

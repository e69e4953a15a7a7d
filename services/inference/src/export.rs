//! `POST /internal/export`: a fine-tuned model as files that other programs load.
//!
//! The base model with what was learned in it, written to this machine's disk and sent from there: as a zip archive of
//! a folder in Hugging Face layout, or as one GGUF file. One is made at a time, and few lie on the disk at once; whoever
//! comes beyond that is asked to come again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use artifacts::{ZipEntry, ZipSource, zip_size_bytes, zip_stream};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use buckets::ProjectObjects;
use futures::{Stream, StreamExt as _};
use lm::gguf::GgufDtype;
use lm::{Adapter, BaseFiles, Device, Learned, learned};
use serde::Deserialize;
use store::base_models::BaseModel;
use store::models::FineTunedModel;
use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::caller::InternalCaller;
use crate::error::ChatError;
use crate::request_id::RequestId;
use crate::resolve::resolve;
use crate::server::AppState;

/// Made exports that are on their way to clients, one being made among them. Each takes a model's size of disk.
const MAX_ON_DISK: usize = 4;

/// What bounds exports, and where they are made.
#[derive(Clone)]
pub(crate) struct Exports {
    dir: PathBuf,
    on_disk: Arc<Semaphore>,
    being_made: Arc<Semaphore>,
}

impl Exports {
    /// Makes them below `dir`.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            on_disk: Arc::new(Semaphore::new(MAX_ON_DISK)),
            being_made: Arc::new(Semaphore::new(1)),
        }
    }
}

/// What to export.
#[derive(Debug, Deserialize)]
pub(crate) struct ExportRequest {
    model: String,
    format: Format,
}

/// As what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Merged,
    Gguf,
}

/// Answers with the files of one of the project's models.
pub(crate) async fn export_model(
    State(state): State<AppState>,
    caller: InternalCaller,
    Extension(request_id): Extension<RequestId>,
    request: Result<Json<ExportRequest>, JsonRejection>,
) -> Response {
    let answered = async {
        let Json(request) = request.map_err(|error| ChatError::invalid("", error.body_text()))?;
        answer(&state, caller, &request).await
    };
    answered
        .await
        .unwrap_or_else(|error: ChatError| error.respond(request_id.as_str()))
}

async fn answer(
    state: &AppState,
    caller: InternalCaller,
    request: &ExportRequest,
) -> Result<Response, ChatError> {
    let resolved = resolve(&state.store, caller.project_id, &request.model).await?;
    let tuned = resolved.tuned.as_ref().ok_or_else(|| {
        ChatError::invalid(
            "model",
            "`model` must be a fine-tuned model, not a base model.",
        )
    })?;
    let overloaded = |_| ChatError::Overloaded;
    let exports = &state.exports;
    let on_disk = exports
        .on_disk
        .clone()
        .try_acquire_owned()
        .map_err(overloaded)?;
    let being_made = exports
        .being_made
        .clone()
        .try_acquire_owned()
        .map_err(overloaded)?;

    let work = workplace(&exports.dir).await?;
    let base_dir = state.cache.folder(&resolved.base).await?;
    let objects = state.cache.objects(caller.project_id, tuned).await?;
    let learned = fetch(state, &objects, &resolved.base, tuned, work.path()).await?;
    let (format, out) = (request.format, work.path().join("out"));
    let entries = blocking(move || {
        let _turn = being_made;
        make(&base_dir, learned, &out, format)
    })
    .await?;
    metrics::counter!("attune_inference_exports_total").increment(1);
    let kept = Kept {
        _work: work,
        _on_disk: on_disk,
    };
    send(entries, format, kept)
}

/// What lasts as long as the answer is being sent.
struct Kept {
    _work: TempDir,
    _on_disk: OwnedSemaphorePermit,
}

/// What was learned, or where it lies.
enum Found {
    /// PEFT's two files.
    Adapter(PathBuf),
    Whole(Learned),
}

async fn workplace(dir: &Path) -> Result<TempDir, ChatError> {
    tokio::fs::create_dir_all(dir)
        .await
        .context("creating the cache's folder")?;
    let made = tempfile::Builder::new().prefix("export-").tempdir_in(dir);
    Ok(made.context("creating a folder for an export")?)
}

async fn fetch(
    state: &AppState,
    objects: &ProjectObjects,
    base: &BaseModel,
    tuned: &FineTunedModel,
    work: &Path,
) -> Result<Found, ChatError> {
    let dir = work.join("learned");
    tokio::fs::create_dir(&dir)
        .await
        .context("creating a folder for what was learned")?;
    let prefix = format!("{}/", tuned.adapter_prefix.trim_end_matches('/'));
    let found = objects.get_present(&prefix, &learned::FILES, &dir);
    if !found.await?.contains(&learned::WEIGHTS_FILE) {
        return Ok(Found::Adapter(dir));
    }
    // Only the model itself says which of its weights these are.
    let base = state.cache.base(base).await?;
    let load = move || {
        Learned::load(&dir, &base.model).context("loading the weights of a fine-tuned model")
    };
    Ok(Found::Whole(blocking(load).await?))
}

/// Writes the model and says which files it is.
fn make(
    base_dir: &Path,
    found: Found,
    out: &Path,
    format: Format,
) -> anyhow::Result<Vec<ZipEntry>> {
    let base = BaseFiles::open(base_dir).context("opening the base model")?;
    let learned = match found {
        Found::Adapter(dir) => {
            let adapter = Adapter::load(&dir, base.config(), &Device::cpu());
            Learned::Adapter(adapter.context("loading the adapter")?)
        }
        Found::Whole(learned) => learned,
    };
    let dtype = base.dtype().context("reading the base model's type")?;
    match format {
        Format::Merged => {
            base.export(out, Some(&learned), dtype)
                .context("merging a model")?;
            let files = std::fs::read_dir(out).context("listing a merged model")?;
            let mut entries = files
                .map(|file| entry(&file?.path()))
                .collect::<anyhow::Result<Vec<_>>>()?;
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        }
        Format::Gguf => {
            let path = out.with_extension("gguf");
            base.export_gguf(&path, Some(&learned), GgufDtype::from(dtype))
                .context("writing a GGUF file")?;
            Ok(vec![entry(&path)?])
        }
    }
}

fn entry(path: &Path) -> anyhow::Result<ZipEntry> {
    let name = path.file_name().and_then(|name| name.to_str());
    let metadata = std::fs::metadata(path).context("looking at an exported file")?;
    Ok(ZipEntry {
        name: name
            .context("an exported file has a plain name")?
            .to_owned(),
        size_bytes: metadata.len(),
        source: ZipSource::File(path.to_owned()),
    })
}

fn send(entries: Vec<ZipEntry>, format: Format, kept: Kept) -> Result<Response, ChatError> {
    let (length, kind, body) = match format {
        Format::Merged => {
            let length = zip_size_bytes(&entries);
            (
                length,
                "application/zip",
                kept_by(zip_stream(entries), kept),
            )
        }
        Format::Gguf => {
            let [file] = <[ZipEntry; 1]>::try_from(entries)
                .map_err(|_| anyhow::anyhow!("a GGUF model is one file"))?;
            let length = file.size_bytes;
            let body = kept_by(file.source.into_stream(), kept);
            (length, "application/octet-stream", body)
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// A body that holds on to something until it is sent, or until its client is gone.
fn kept_by<E: std::error::Error + Send + Sync + 'static>(
    stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    kept: Kept,
) -> Body {
    Body::from_stream(stream.map(move |chunk| {
        let _ = &kept;
        chunk
    }))
}

/// Runs what would hold up the runtime on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, ChatError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.context("a thread panicked")??)
}

//! A base model's files to S3 and back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use artifacts::SharedObjects;
use lm::base::BaseFiles;
use store::base_models::{BaseModel, BaseModelFile};

/// Stores the documents and weights under the model's prefix and notes them in it. On failure,
/// removes what was stored: nobody would refer to it.
pub(super) async fn upload(
    objects: &SharedObjects,
    model: &mut BaseModel,
    files: &BaseFiles,
) -> Result<()> {
    let uploaded = upload_all(objects, model, files).await;
    if uploaded.is_err()
        && let Err(error) = objects.delete_base(model.id).await
    {
        tracing::warn!(%error, "Left parts of an import of `{}` in S3", model.name);
    }
    uploaded
}

async fn upload_all(
    objects: &SharedObjects,
    model: &mut BaseModel,
    files: &BaseFiles,
) -> Result<()> {
    for (name, bytes) in files.documents() {
        let stored = objects.put_base_bytes(model.id, name, bytes).await?;
        note(model, name, stored);
    }
    for path in files.weight_files() {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("`{}` has no usable name", path.display()))?;
        tracing::info!("Storing `{name}`");
        let stored = objects.put_base_file(model.id, name, path).await?;
        note(model, name, stored);
    }
    Ok(())
}

fn note(model: &mut BaseModel, name: &str, stored: artifacts::Stored) {
    model.size_bytes += stored.size_bytes;
    model.files.push(BaseModelFile {
        name: name.to_owned(),
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
    });
}

/// Fetches what is missing of the model's files into a folder below `parent`, and names that folder.
pub(super) async fn download(
    objects: &SharedObjects,
    model: &BaseModel,
    parent: &Path,
) -> Result<PathBuf> {
    let folder = parent.join(model.id.to_string());
    fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    for file in &model.files {
        let path = folder.join(&file.name);
        // A file appears under its name only when it is whole.
        if !path.exists() {
            objects
                .get_base_file(model.id, &file.name, &path, &file.sha256)
                .await?;
        }
    }
    Ok(folder)
}

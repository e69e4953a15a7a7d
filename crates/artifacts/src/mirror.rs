//! A folder on disk that mirrors a prefix: what services keep of base models, adapters and checkpoints.

use std::path::Path;

use crate::{ArtifactError, ObjectStore};

/// One file of a mirrored folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorFile {
    /// Its name below the prefix and in the folder.
    pub name: String,
    /// What it must be when it arrives, in hexadecimal.
    pub sha256: String,
}

impl ObjectStore {
    /// Makes sure that `dir` holds `files` from below `prefix` (which ends in `/`).
    ///
    /// A file is verified when it arrives and appears only whole, so one that is there is taken to be right. Two
    /// processes may mirror into one folder.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::get_file_verified`]; files that arrived before the error stay.
    pub async fn mirror(
        &self,
        prefix: &str,
        files: &[MirrorFile],
        dir: &Path,
    ) -> Result<(), ArtifactError> {
        tokio::fs::create_dir_all(dir)
            .await
            .map_err(|error| ArtifactError::local("create", dir, error))?;
        for file in files {
            let path = dir.join(&file.name);
            if !path.is_file() {
                self.get_file_verified(&format!("{prefix}{}", file.name), &path, &file.sha256)
                    .await?;
            }
        }
        Ok(())
    }
}

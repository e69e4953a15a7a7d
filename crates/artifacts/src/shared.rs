//! What belongs to the installation and to no project: base models.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use domain::BaseModelId;

use crate::{ArtifactError, ObjectStore, S3Config, Stored, keys};

/// The installation's bucket, open to base models alone. A project's objects are reached through the store that was
/// found for that project: they may be in a bucket of its own.
#[derive(Clone, Debug)]
pub struct SharedObjects(ObjectStore);

impl SharedObjects {
    /// A client of the installation's bucket. Nothing is sent yet.
    pub fn connect(installation: &S3Config) -> Self {
        let bases = keys::BASES_PREFIX.to_owned();
        Self(ObjectStore::connect(installation).within(bases))
    }

    /// As [`ObjectStore::ensure_bucket`].
    ///
    /// # Errors
    ///
    /// When the server is away, or the credentials may not create buckets.
    pub async fn ensure_bucket(&self) -> Result<(), ArtifactError> {
        self.0.ensure_bucket().await
    }

    /// As [`ObjectStore::ready`].
    ///
    /// # Errors
    ///
    /// Says why the bucket cannot be reached.
    pub async fn ready(&self) -> Result<(), ArtifactError> {
        self.0.ready().await
    }

    /// Makes sure that `dir` holds the base model's files that `sums` names, each with its SHA-256 in hexadecimal. As
    /// [`ObjectStore::mirror`].
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::get_file_verified`]; files that arrived before the error stay.
    pub async fn mirror_base(
        &self,
        base: BaseModelId,
        sums: &BTreeMap<String, String>,
        dir: &Path,
    ) -> Result<(), ArtifactError> {
        self.0.mirror(&keys::base_prefix(base), sums, dir).await
    }

    /// A file of the base model in memory, unless it is larger than `max_bytes`.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::get_bytes`].
    pub async fn get_base_bytes(
        &self,
        base: BaseModelId,
        name: &str,
        max_bytes: u64,
    ) -> Result<Bytes, ArtifactError> {
        self.0.get_bytes(&keys::base(base, name), max_bytes).await
    }

    /// Downloads a file of the base model into `path`, if its SHA-256 (hexadecimal) is this one.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::get_file_verified`].
    pub async fn get_base_file(
        &self,
        base: BaseModelId,
        name: &str,
        path: &Path,
        sha256: &str,
    ) -> Result<Stored, ArtifactError> {
        let key = keys::base(base, name);
        self.0.get_file_verified(&key, path, sha256).await
    }

    /// Stores bytes as a file of the base model.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::put_bytes`].
    pub async fn put_base_bytes(
        &self,
        base: BaseModelId,
        name: &str,
        bytes: &[u8],
    ) -> Result<Stored, ArtifactError> {
        self.0.put_bytes(&keys::base(base, name), bytes).await
    }

    /// Stores a local file as a file of the base model.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::put_file`].
    pub async fn put_base_file(
        &self,
        base: BaseModelId,
        name: &str,
        path: &Path,
    ) -> Result<Stored, ArtifactError> {
        self.0.put_file(&keys::base(base, name), path).await
    }

    /// Deletes every file of the base model, and says how many there were.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::delete_prefix`].
    pub async fn delete_base(&self, base: BaseModelId) -> Result<u64, ArtifactError> {
        self.0.delete_prefix(&keys::base_prefix(base)).await
    }
}

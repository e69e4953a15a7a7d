//! Getting objects: as a stream, into memory, or into a file that appears only when it is whole.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::store::size;
use crate::write::Stored;
use crate::{ArtifactError, ObjectStore};

/// An object's bytes as they arrive.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, ArtifactError>> + Send>>;

/// An object, or a part of one, being read.
pub struct ObjectBody {
    /// How many bytes the stream will give.
    pub size_bytes: u64,
    pub stream: ByteStream,
}

impl ObjectStore {
    /// The whole object as a stream.
    ///
    /// # Errors
    ///
    /// [`ArtifactError::NotFound`], or the server is away. The stream itself fails when the
    /// connection breaks; it never ends early in silence.
    pub async fn get_stream(&self, key: &str) -> Result<ObjectBody, ArtifactError> {
        self.open(key, None).await
    }

    /// A part of the object as a stream; a range that ends beyond the object gives what there is.
    ///
    /// # Errors
    ///
    /// As [`Self::get_stream`]; [`ArtifactError::InvalidRange`] if it starts beyond the object or
    /// is empty.
    pub async fn get_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<ObjectBody, ArtifactError> {
        if range.is_empty() {
            return Err(ArtifactError::InvalidRange {
                key: key.to_owned(),
            });
        }
        self.open(
            key,
            Some(format!("bytes={}-{}", range.start, range.end - 1)),
        )
        .await
    }

    /// The object in memory, unless it is larger than `max_bytes`.
    ///
    /// # Errors
    ///
    /// As [`Self::get_stream`]; [`ArtifactError::TooLarge`] without having read it.
    pub async fn get_bytes(&self, key: &str, max_bytes: u64) -> Result<Bytes, ArtifactError> {
        let mut body = self.get_stream(key).await?;
        if body.size_bytes > max_bytes {
            return Err(ArtifactError::TooLarge {
                key: key.to_owned(),
                max_bytes,
            });
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// Downloads into `path`. The file appears under its name only when it is whole.
    ///
    /// # Errors
    ///
    /// As [`Self::get_stream`]; [`ArtifactError::Local`] or [`ArtifactError::NoSpace`] for the file.
    pub async fn get_file(&self, key: &str, path: &Path) -> Result<Stored, ArtifactError> {
        self.download(key, path, None).await
    }

    /// As [`Self::get_file`], and the file appears only if its SHA-256 (hexadecimal) is this one.
    ///
    /// # Errors
    ///
    /// As [`Self::get_file`]; [`ArtifactError::Checksum`].
    pub async fn get_file_verified(
        &self,
        key: &str,
        path: &Path,
        sha256: &str,
    ) -> Result<Stored, ArtifactError> {
        self.download(key, path, Some(sha256)).await
    }

    async fn open(&self, key: &str, range: Option<String>) -> Result<ObjectBody, ArtifactError> {
        let object = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.stored_key(key)?)
            .set_range(range)
            .send()
            .await
            .map_err(|error| self.failed("get", key, error))?;
        let body = (object.body, self.clone(), key.to_owned());
        let stream = futures::stream::try_unfold(body, |(mut body, store, key)| async move {
            match body.try_next().await {
                Ok(Some(bytes)) => Ok(Some((bytes, (body, store, key)))),
                Ok(None) => Ok(None),
                Err(source) => {
                    let source = source.into();
                    Err(store.blamed(ArtifactError::Unavailable {
                        operation: "get",
                        key,
                        source,
                    }))
                }
            }
        });
        Ok(ObjectBody {
            size_bytes: size(object.content_length),
            stream: Box::pin(stream),
        })
    }

    async fn download(
        &self,
        key: &str,
        path: &Path,
        expected: Option<&str>,
    ) -> Result<Stored, ArtifactError> {
        let body = self.get_stream(key).await?;
        let partial = Partial::beside(path);
        let stored = partial.fill(body).await?;
        if let Some(expected) = expected.filter(|expected| *expected != stored.sha256) {
            let (expected, actual) = (expected.to_owned(), stored.sha256);
            return Err(ArtifactError::Checksum {
                key: key.to_owned(),
                expected,
                actual,
            });
        }
        partial.finish(path).await?;
        Ok(stored)
    }
}

/// A download under way, in the folder of its destination. Removed unless it is finished.
struct Partial(PathBuf);

impl Partial {
    fn beside(path: &Path) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        // Two processes, or two tasks of one, may fetch the same file at the same time.
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self(path.with_file_name(format!(".{name}.{}-{n}.partial", std::process::id())))
    }

    async fn fill(&self, mut body: ObjectBody) -> Result<Stored, ArtifactError> {
        let local = |error| ArtifactError::local("write", &self.0, error);
        let mut file = tokio::fs::File::create(&self.0).await.map_err(local)?;
        let mut sha256 = Sha256::new();
        let mut size_bytes = 0;
        while let Some(chunk) = body.stream.try_next().await? {
            sha256.update(&chunk);
            size_bytes += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(local)?;
        }
        // tokio's file defers errors of the last write to here.
        file.flush().await.map_err(local)?;
        Ok(Stored {
            size_bytes,
            sha256: hex::encode(sha256.finalize()),
        })
    }

    async fn finish(&self, path: &Path) -> Result<(), ArtifactError> {
        tokio::fs::rename(&self.0, path)
            .await
            .map_err(|error| ArtifactError::local("rename a download to", path, error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing left under this name.
        let _ = std::fs::remove_file(&self.0);
    }
}

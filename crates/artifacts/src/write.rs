//! Putting objects: from memory, from a file, or from a stream of unknown length in constant memory.

use std::io;
use std::path::Path;

use aws_sdk_s3::primitives::ByteStream as Body;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tokio_util::io::ReaderStream;

use crate::error::Cause;
use crate::part::Part;
use crate::{ArtifactError, ObjectStore};

/// The size of a part of a multipart upload. Ten thousand parts, S3's limit, make 80 GB.
pub const PART_BYTES: usize = 8 << 20;

/// How many parts of one object are on their way at once, while the next is being filled: the server hashes and writes a
/// part no faster than we do, and each would otherwise wait for the other.
const PARTS_ON_THEIR_WAY: usize = 2;

/// How much of a file is read at once.
const READ_BYTES: usize = 256 << 10;

/// What was stored, measured on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub size_bytes: u64,
    /// SHA-256 of the content, hexadecimal in lower case.
    pub sha256: String,
}

impl ObjectStore {
    /// Stores bytes under the key, replacing what was there.
    ///
    /// # Errors
    ///
    /// When the server is away, full or refuses; the old object is then untouched.
    pub async fn put_bytes(&self, key: &str, bytes: &[u8]) -> Result<Stored, ArtifactError> {
        self.put_whole(key, Bytes::copy_from_slice(bytes)).await?;
        let sha256 = hex::encode(Sha256::digest(bytes));
        Ok(Stored {
            size_bytes: bytes.len() as u64,
            sha256,
        })
    }

    /// Stores a file under the key, replacing what was there.
    ///
    /// # Errors
    ///
    /// As [`Self::put_stream`]; [`ArtifactError::Local`] if the file cannot be opened.
    pub async fn put_file(&self, key: &str, path: &Path) -> Result<Stored, ArtifactError> {
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|error| ArtifactError::local("read", path, error))?;
        self.put_stream(key, ReaderStream::with_capacity(file, READ_BYTES), u64::MAX)
            .await
    }

    /// Stores what the stream gives, replacing what was there; the object appears only when it is
    /// whole. Holds three parts in memory, whatever the length.
    ///
    /// # Errors
    ///
    /// [`ArtifactError::TooLarge`] as soon as more than `max_bytes` came; [`ArtifactError::Source`]
    /// when the stream fails; [`ArtifactError::NoMemory`] when there is none for a part; otherwise when
    /// the server is away, full or refuses. In each case, and when the future is dropped, the parts
    /// already sent are given up.
    pub async fn put_stream<S, E>(
        &self,
        key: &str,
        stream: S,
        max_bytes: u64,
    ) -> Result<Stored, ArtifactError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Cause>,
    {
        // Before anything is read.
        self.stored_key(key)?;
        let mut stream = std::pin::pin!(stream);
        let mut filling = Part::default();
        let mut upload: Option<Multipart> = None;
        let mut sha256 = Sha256::new();
        let mut size_bytes = 0_u64;
        let source = |error: E| ArtifactError::Source {
            key: key.to_owned(),
            source: error.into(),
        };
        let no_memory = |source: io::Error| ArtifactError::NoMemory {
            key: key.to_owned(),
            source,
        };
        while let Some(mut chunk) = stream.try_next().await.map_err(source)? {
            size_bytes += chunk.len() as u64;
            if size_bytes > max_bytes {
                return Err(ArtifactError::TooLarge {
                    key: key.to_owned(),
                    max_bytes,
                });
            }
            sha256.update(&chunk);
            while !chunk.is_empty() {
                filling.take_from(&mut chunk).map_err(no_memory)?;
                if filling.is_full() {
                    let upload = match &mut upload {
                        Some(upload) => upload,
                        none => none.insert(Multipart::begin(self, key).await?),
                    };
                    upload
                        .send(std::mem::take(&mut filling).into_bytes())
                        .await?;
                }
            }
        }
        match upload {
            None => self.put_whole(key, filling.into_bytes()).await?,
            Some(mut upload) => {
                if !filling.is_empty() {
                    upload.send(filling.into_bytes()).await?;
                }
                upload.complete().await?;
            }
        }
        Ok(Stored {
            size_bytes,
            sha256: hex::encode(sha256.finalize()),
        })
    }

    async fn put_whole(&self, key: &str, bytes: Bytes) -> Result<(), ArtifactError> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(self.stored_key(key)?)
            .body(Body::from(bytes))
            .send()
            .await
            .map_err(|error| self.failed("put", key, error))?;
        Ok(())
    }
}

/// A multipart upload under way. Dropped before it is complete, it is aborted: servers keep (and
/// bill) the parts of uploads that nobody ends.
struct Multipart {
    store: ObjectStore,
    key: String,
    /// The key as the bucket knows it.
    stored_key: String,
    /// `None` once it is complete.
    upload_id: Option<String>,
    n_sent: i32,
    on_their_way: JoinSet<Result<CompletedPart, ArtifactError>>,
    arrived: Vec<CompletedPart>,
}

impl Multipart {
    async fn begin(store: &ObjectStore, key: &str) -> Result<Self, ArtifactError> {
        let stored_key = store.stored_key(key)?;
        let created = store
            .client
            .create_multipart_upload()
            .bucket(&store.bucket)
            .key(&stored_key)
            .send()
            .await
            .map_err(|error| store.failed("begin to put", key, error))?;
        let (store, key) = (store.clone(), key.to_owned());
        Ok(Self {
            store,
            key,
            stored_key,
            upload_id: created.upload_id,
            n_sent: 0,
            on_their_way: JoinSet::new(),
            arrived: Vec::new(),
        })
    }

    /// Sends the next part, once there is room for it among those on their way. A part that failed says so here or in
    /// [`Self::complete`].
    async fn send(&mut self, bytes: Bytes) -> Result<(), ArtifactError> {
        while self.on_their_way.len() >= PARTS_ON_THEIR_WAY {
            self.one_arrives().await?;
        }
        if self.n_sent == 10_000 {
            return Err(ArtifactError::TooLarge {
                key: self.key.clone(),
                max_bytes: 10_000 * PART_BYTES as u64,
            });
        }
        self.n_sent += 1;
        let (store, key, part_number) = (self.store.clone(), self.key.clone(), self.n_sent);
        let request = store
            .client
            .upload_part()
            .bucket(&store.bucket)
            .key(&self.stored_key)
            .set_upload_id(self.upload_id.clone())
            .part_number(part_number)
            .body(Body::from(bytes));
        // A task of its own, so that it is signed and sent while this one hashes the next part.
        self.on_their_way.spawn(async move {
            let sent = request
                .send()
                .await
                .map_err(|error| store.failed("put a part of", &key, error))?;
            Ok(CompletedPart::builder()
                .part_number(part_number)
                .set_e_tag(sent.e_tag)
                .build())
        });
        Ok(())
    }

    async fn one_arrives(&mut self) -> Result<(), ArtifactError> {
        match self.on_their_way.join_next().await {
            Some(Ok(sent)) => self.arrived.push(sent?),
            Some(Err(error)) if error.is_panic() => {
                std::panic::resume_unwind(error.into_panic());
            }
            // Only dropping `self` cancels them.
            Some(Err(_)) | None => {}
        }
        Ok(())
    }

    async fn complete(mut self) -> Result<(), ArtifactError> {
        while !self.on_their_way.is_empty() {
            self.one_arrives().await?;
        }
        let mut parts = std::mem::take(&mut self.arrived);
        parts.sort_by_key(CompletedPart::part_number);
        self.store
            .client
            .complete_multipart_upload()
            .bucket(&self.store.bucket)
            .key(&self.stored_key)
            .set_upload_id(self.upload_id.clone())
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(parts))
                    .build(),
            )
            .send()
            .await
            .map_err(|error| self.store.failed("finish putting", &self.key, error))?;
        self.upload_id = None;
        Ok(())
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        let Some(upload_id) = self.upload_id.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (store, key) = (self.store.clone(), std::mem::take(&mut self.key));
        let stored_key = std::mem::take(&mut self.stored_key);
        let mut on_their_way = std::mem::take(&mut self.on_their_way);
        runtime.spawn(async move {
            // A part that arrives after the abort would stay.
            on_their_way.shutdown().await;
            let aborted = store
                .client
                .abort_multipart_upload()
                .bucket(&store.bucket)
                .key(&stored_key)
                .upload_id(upload_id)
                .send()
                .await;
            if let Err(error) = aborted {
                let error = store.failed("abort putting", &key, error);
                tracing::warn!(%error, "An abandoned upload of `{key}` was left on the server");
            }
        });
    }
}

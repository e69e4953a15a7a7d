//! Listing by prefix, page by page, and deleting by prefix.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use crate::store::size;
use crate::{ArtifactError, ObjectStore};

/// S3's own limit, for listing and for deleting.
const PAGE: usize = 1_000;

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    pub key: String,
    pub size_bytes: u64,
    /// When it was last written, in Unix seconds.
    pub modified_unix_secs: i64,
}

impl ObjectStore {
    /// Up to `limit` (at most 1,000) objects whose keys start with `prefix` and sort after `after`,
    /// in the order of their keys. A page shorter than `limit` is the last.
    ///
    /// # Errors
    ///
    /// When the server is away or refuses.
    pub async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>, ArtifactError> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.stored_prefix(prefix)?)
            .set_start_after(after.map(|after| self.stored_prefix(after)).transpose()?)
            .max_keys(i32::try_from(limit.min(PAGE)).unwrap_or(1_000))
            .send()
            .await
            .map_err(|error| self.failed("list", prefix, error))?;
        Ok(page
            .contents
            .unwrap_or_default()
            .into_iter()
            .filter_map(|object| self.info(object))
            .collect())
    }

    /// All objects whose keys start with `prefix`, in the order of their keys.
    ///
    /// # Errors
    ///
    /// When the server is away or refuses.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ArtifactError> {
        let mut objects: Vec<ObjectInfo> = Vec::new();
        loop {
            let after = objects.last().map(|object| object.key.clone());
            let page = self.list_page(prefix, after.as_deref(), PAGE).await?;
            let last = page.len() < PAGE;
            objects.extend(page);
            if last {
                return Ok(objects);
            }
        }
    }

    /// Deletes every object under `prefix`, which must end in `/`, and says how many there were.
    /// Interrupted, it may be called again.
    ///
    /// # Errors
    ///
    /// When the server is away or refuses; some objects may be gone by then.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<u64, ArtifactError> {
        // A prefix that stops inside a name would take its neighbours along; an empty one, all.
        if prefix.len() < 2 || !prefix.ends_with('/') {
            let reason = "a prefix to delete must name something and end in `/`";
            return Err(ArtifactError::InvalidKey {
                key: prefix.to_owned(),
                reason,
            });
        }
        let mut n_deleted = 0;
        loop {
            let page = self.list_page(prefix, None, PAGE).await?;
            if page.is_empty() {
                return Ok(n_deleted);
            }
            n_deleted += page.len() as u64;
            self.delete_batch(prefix, page).await?;
        }
    }

    async fn delete_batch(
        &self,
        prefix: &str,
        objects: Vec<ObjectInfo>,
    ) -> Result<(), ArtifactError> {
        let mut batch = Delete::builder().quiet(true);
        for object in objects {
            let identifier = ObjectIdentifier::builder()
                .key(self.stored_prefix(&object.key)?)
                .build()
                .expect("a key is all that an identifier needs");
            batch = batch.objects(identifier);
        }
        let batch = batch.build().expect("objects were added");
        let answer = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(batch)
            .send()
            .await
            .map_err(|error| self.failed("delete", prefix, error))?;
        // The call succeeds as a whole even when single objects stay.
        match answer.errors().first() {
            None => Ok(()),
            Some(failed) => Err(self.blamed(ArtifactError::Refused {
                operation: "delete",
                key: failed.key().unwrap_or(prefix).to_owned(),
                code: failed.code().unwrap_or("unknown").to_owned(),
                source: failed.message().unwrap_or("no message").to_owned().into(),
            })),
        }
    }

    fn info(&self, object: aws_sdk_s3::types::Object) -> Option<ObjectInfo> {
        Some(ObjectInfo {
            size_bytes: size(object.size),
            modified_unix_secs: object.last_modified.map_or(0, |time| time.secs()),
            key: self.shown_key(&object.key?)?,
        })
    }
}

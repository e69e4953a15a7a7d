//! Clients of projects' own buckets. Making one opens a secret and a pool of connections, so they are kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use artifacts::ObjectStore;
use domain::ProjectId;
use store::StoreError;
use store::buckets::{Location, ProjectBucket};
use store::sealed::Keyring;

/// How many are kept. What is beyond is made anew when it is needed.
const MAX_KEPT: usize = 1_024;

/// A client, and what of the row it was made from.
struct Client {
    location: Location,
    version: i64,
    objects: ObjectStore,
}

/// The clients of this process.
#[derive(Default)]
pub(crate) struct Opened(Mutex<HashMap<ProjectId, Client>>);

impl Opened {
    /// The client of the bucket as its row is now.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] if the secret does not open.
    pub(crate) fn get(
        &self,
        bucket: &ProjectBucket,
        keyring: &Keyring,
    ) -> Result<ObjectStore, StoreError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (bucket.location(), bucket.version);
        if let Some(client) = kept.get(&bucket.project_id)
            && (client.location, client.version) == wanted
        {
            return Ok(client.objects.clone());
        }
        let objects = ObjectStore::connect(&crate::s3_config(bucket, keyring)?);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let client = Client {
            location: bucket.location(),
            version: bucket.version,
            objects: objects.clone(),
        };
        kept.insert(bucket.project_id, client);
        Ok(objects)
    }
}

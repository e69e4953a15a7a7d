//! The objects of one project, wherever they are.

use std::ops::Deref;

use artifacts::{ArtifactError, ObjectStore, ZipSource, keys};
use domain::ProjectId;
use store::buckets::{self, Location, ProjectBucket};
use store::{StoreError, TenantTx};

/// The objects of one project. Keys of other projects are refused.
#[derive(Clone, Debug)]
pub struct ProjectObjects {
    objects: ObjectStore,
    project_id: ProjectId,
    location: Location,
    is_own: bool,
}

impl ProjectObjects {
    pub(crate) fn in_installation(objects: ObjectStore, project_id: ProjectId) -> Self {
        Self {
            objects: objects.within(keys::project_prefix(project_id)),
            project_id,
            location: Location::default(),
            is_own: false,
        }
    }

    pub(crate) fn in_own(objects: ObjectStore, bucket: &ProjectBucket) -> Self {
        let project_id = bucket.project_id;
        Self {
            objects: objects.within(keys::project_prefix(project_id)).as_own(),
            project_id,
            location: bucket.location(),
            is_own: true,
        }
    }

    /// Makes sure, until the transaction's end, that the project's objects are still where one was put through this. For
    /// the transaction that writes a row which names it.
    ///
    /// # Errors
    /// [`StoreError::BucketChanged`] if the operator gave the project another place meanwhile.
    pub async fn hold(&self, tx: &mut TenantTx) -> Result<(), StoreError> {
        buckets::hold(tx, self.location).await
    }

    /// Whether a bucket of the project's own can be reached, in seconds and before much is done in vain. The
    /// installation's is taken for granted.
    ///
    /// # Errors
    /// Says why not.
    pub async fn check_own(&self) -> Result<(), ArtifactError> {
        if self.is_own {
            self.objects.ready().await?;
        }
        Ok(())
    }

    /// The object as an entry of an archive.
    pub fn zip_source(&self, key: String) -> ZipSource {
        ZipSource::Object(self.objects.clone(), key)
    }

    /// What the keys of all of the project's objects begin with.
    pub fn prefix(&self) -> String {
        keys::project_prefix(self.project_id)
    }
}

impl Deref for ProjectObjects {
    type Target = ObjectStore;

    fn deref(&self) -> &ObjectStore {
        &self.objects
    }
}

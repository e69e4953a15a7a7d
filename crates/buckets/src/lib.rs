//! From a project to the place where its objects are: the installation's bucket, or one of its own.
//!
//! This is the only way to a project's objects. What comes out ([`ProjectObjects`]) refuses every key of another project;
//! base models are reached through [`Buckets::shared`], which serves nothing else. So no service can put an object into
//! the installation's bucket without having asked whose it is.

mod opened;
mod project;

use std::collections::HashMap;
use std::sync::Arc;

use artifacts::{ObjectStore, S3Config, SharedObjects, keys};
use domain::ProjectId;
use store::buckets::{self, ProjectBucket};
use store::models::FineTunedModel;
use store::sealed::Keyring;
use store::{Store, StoreError, TenantTx, WorkerTx};

use crate::opened::Opened;
pub use crate::project::ProjectObjects;

/// Why a project's objects cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The database failed, or the bucket's secret does not open.
    #[error("the project's bucket could not be looked up")]
    Store(#[from] StoreError),
    /// The project has a bucket of its own, and this service has no key to open its secret with.
    #[error(
        "the project `{project_id}` has a bucket of its own, whose credentials this service cannot read: set \
         ATTUNE_SECRET_KEYS or ATTUNE_SECRET_KEYS_FILE to what the API has"
    )]
    NoKeyring {
        /// Whose bucket it is.
        project_id: ProjectId,
    },
}

/// Every bucket that the installation keeps objects in. Cloning shares the clients.
#[derive(Clone)]
pub struct Buckets(Arc<Inner>);

struct Inner {
    shared: SharedObjects,
    /// The installation's bucket, for projects that have none of their own.
    installation: ObjectStore,
    keyring: Option<Keyring>,
    opened: Opened,
}

impl Buckets {
    /// The installation's bucket, and the keyring that opens the secrets of others. Nothing is sent yet.
    pub fn new(installation: &S3Config, keyring: Option<Keyring>) -> Self {
        Self(Arc::new(Inner {
            shared: SharedObjects::connect(installation),
            installation: ObjectStore::connect(installation),
            keyring,
            opened: Opened::default(),
        }))
    }

    /// What belongs to no project.
    pub fn shared(&self) -> &SharedObjects {
        &self.0.shared
    }

    /// The objects of the transaction's project. One look at its row, so that what the operator changes is seen at once.
    ///
    /// # Errors
    /// The project has a bucket that this service cannot open.
    pub async fn of(&self, tx: &mut TenantTx) -> Result<ProjectObjects, BucketError> {
        let project_id = tx.project_id();
        self.open(project_id, buckets::find(tx, project_id).await?)
    }

    /// As [`Self::of`], in a transaction of its own.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub async fn of_project(
        &self,
        store: &Store,
        project_id: ProjectId,
    ) -> Result<ProjectObjects, BucketError> {
        let mut tx = store.tenant_tx(project_id).await?;
        let objects = self.of(&mut tx).await?;
        tx.commit().await?;
        Ok(objects)
    }

    /// The objects of a model that the transaction's project may use: its own, or its owner's who permitted it.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub async fn of_model(
        &self,
        tx: &mut TenantTx,
        model: &FineTunedModel,
    ) -> Result<ProjectObjects, BucketError> {
        let bucket = buckets::find(tx, model.project_id).await?;
        self.open(model.project_id, bucket)
    }

    /// The objects of each of the projects. That one cannot be opened is no matter to the others.
    ///
    /// # Errors
    /// The database failed.
    pub async fn of_projects(
        &self,
        tx: &mut WorkerTx,
        project_ids: &[ProjectId],
    ) -> Result<HashMap<ProjectId, Result<ProjectObjects, BucketError>>, StoreError> {
        let own = buckets::of_projects(tx, project_ids).await?;
        let mut own: HashMap<_, _> = own
            .into_iter()
            .map(|bucket| (bucket.project_id, bucket))
            .collect();
        let opened = project_ids
            .iter()
            .map(|id| (*id, self.open(*id, own.remove(id))));
        Ok(opened.collect())
    }

    /// The objects of all projects that have no bucket of their own, for a sweep.
    pub fn of_the_others(&self) -> ObjectStore {
        let installation = self.0.installation.clone();
        installation.within(keys::PROJECTS_PREFIX.to_owned())
    }

    fn open(
        &self,
        project_id: ProjectId,
        bucket: Option<ProjectBucket>,
    ) -> Result<ProjectObjects, BucketError> {
        let Some(bucket) = bucket else {
            let objects = self.0.installation.clone();
            return Ok(ProjectObjects::in_installation(objects, project_id));
        };
        let keyring = self.0.keyring.as_ref();
        let keyring = keyring.ok_or(BucketError::NoKeyring { project_id })?;
        let objects = self.0.opened.get(&bucket, keyring)?;
        Ok(ProjectObjects::in_own(objects, &bucket))
    }
}

/// The settings of a client of the bucket.
///
/// # Errors
/// [`StoreError::Sealed`] if its secret does not open.
fn s3_config(bucket: &ProjectBucket, keyring: &Keyring) -> Result<S3Config, StoreError> {
    let secret = bucket.secret(keyring)?;
    let secret = secret.expose_text();
    let secret = secret.map_err(|source| StoreError::Sealed {
        place: bucket.sealed_place(),
        source,
    })?;
    Ok(s3_config_of(&bucket.settings, secret))
}

/// The settings of a client of a bucket that no project has yet.
pub fn s3_config_of(settings: &buckets::Settings, secret: &str) -> S3Config {
    let settings = settings.clone();
    S3Config {
        endpoint: settings.endpoint,
        region: settings.region,
        bucket: settings.bucket,
        prefix: settings.prefix,
        path_style: settings.path_style,
        access_key_id: settings.access_key_id,
        secret_access_key: secret.to_owned(),
    }
}

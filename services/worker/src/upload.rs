//! Objects that an attempt stores. A row that names one is fenced by the lease; this keeps a worker that lost its job from
//! storing what no row would ever name.

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::Stored;
use buckets::{Buckets, ProjectObjects};
use domain::Failure;
use store::{Lease, Store, StoreError, TenantTx, lease};

use crate::failure::Stop;

/// Stores objects for one attempt, as long as the job is its own.
pub(crate) struct Uploads {
    store: Store,
    objects: ProjectObjects,
    lease: Lease,
}

/// What was stored of a folder.
#[derive(Default)]
pub(crate) struct Folder {
    /// The SHA-256 of each file, by its name.
    pub(crate) manifest: BTreeMap<String, String>,
    /// Of all its files.
    pub(crate) size_bytes: u64,
}

impl Uploads {
    /// To where the project's objects are now.
    pub(crate) async fn begin(
        store: &Store,
        buckets: &Buckets,
        lease: &Lease,
    ) -> Result<Self, Stop> {
        Ok(Self {
            store: store.clone(),
            objects: buckets.of_project(store, lease.project_id).await?,
            lease: lease.clone(),
        })
    }

    /// Makes sure, until the transaction's end, that what was uploaded is still where the project's objects are.
    pub(crate) async fn hold(&self, tx: &mut TenantTx) -> Result<(), StoreError> {
        self.objects.hold(tx).await
    }

    /// Uploads every file of `dir` below `prefix`, which ends in `/`.
    pub(crate) async fn folder(&self, dir: &Path, prefix: &str) -> Result<Folder, Stop> {
        let mut folder = Folder::default();
        for entry in std::fs::read_dir(dir).map_err(|error| Failure::transient(&error))? {
            let path = entry.map_err(|error| Failure::transient(&error))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let stored = self.file(&path, &format!("{prefix}{name}")).await?;
            folder.size_bytes += stored.size_bytes;
            folder.manifest.insert(name, stored.sha256);
        }
        Ok(folder)
    }

    /// Uploads one file. Each asks anew: a checkpoint may take longer than a lease.
    pub(crate) async fn file(&self, path: &Path, key: &str) -> Result<Stored, Stop> {
        self.still_ours().await?;
        Ok(self.objects.put_file(key, path).await?)
    }

    async fn still_ours(&self) -> Result<(), StoreError> {
        let mut tx = self.store.tenant_tx(self.lease.project_id).await?;
        lease::still_ours(&mut tx, &self.lease).await?;
        tx.commit().await
    }
}

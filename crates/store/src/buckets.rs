//! Projects' own buckets: where a project's objects are, if they are not in the installation's bucket.
//!
//! Objects are never moved. So a project is given a bucket, or loses it, only while it has no object; and a row that
//! names an object is written only where the object was put while that place was the project's ([`hold`]).

mod change;
mod held;

use domain::ProjectId;
use sqlx::PgConnection;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::sealed::{Keyring, Place, Plaintext};
use crate::tx::Connection;
use crate::{OperatorTx, StoreError, TenantTx, WorkerTx};

pub use change::{Change, remove, set};
pub use held::{Held, held};

const TABLE: &str = "project_buckets";
const COLUMN: &str = "secret_access_key";

/// How a bucket is reached, but for the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `https://host`, without the bucket.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket's name.
    pub bucket: String,
    /// What goes before every key: empty, or ends in `/`.
    pub prefix: String,
    /// Whether the bucket stands in a request's path.
    pub path_style: bool,
    /// The public half of the credentials.
    pub access_key_id: String,
}

impl Settings {
    /// Whether both name the same place, however they get there.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.endpoint, &self.bucket, &self.prefix)
            == (&other.endpoint, &other.bucket, &other.prefix)
    }
}

/// Where a project's objects are: in the installation's bucket, or in one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Location(Option<Uuid>);

/// A project's own bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectBucket {
    id: Uuid,
    /// Whose it is.
    pub project_id: ProjectId,
    /// How it is reached.
    pub settings: Settings,
    /// Grows with every change of `settings` or the secret.
    pub version: i64,
    /// When the operator last said how it is reached.
    pub configured_at: OffsetDateTime,
    sealed: Vec<u8>,
}

impl ProjectBucket {
    /// That objects are in this bucket.
    pub fn location(&self) -> Location {
        Location(Some(self.id))
    }

    /// Where the secret stands.
    pub fn sealed_place(&self) -> Place {
        place(self.project_id, self.id)
    }

    /// The secret half of the credentials.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] if it cannot be opened.
    pub fn secret(&self, keyring: &Keyring) -> Result<Plaintext, StoreError> {
        self.sealed_place().open(keyring, &self.sealed)
    }
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    endpoint: String,
    region: String,
    bucket: String,
    prefix: String,
    path_style: bool,
    access_key_id: String,
    secret_access_key: Vec<u8>,
    version: i64,
    configured_at: OffsetDateTime,
}

impl From<Row> for ProjectBucket {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            project_id: ProjectId(row.project_id),
            settings: Settings {
                endpoint: row.endpoint,
                region: row.region,
                bucket: row.bucket,
                prefix: row.prefix,
                path_style: row.path_style,
                access_key_id: row.access_key_id,
            },
            version: row.version,
            configured_at: row.configured_at,
            sealed: row.secret_access_key,
        }
    }
}

/// The own bucket of the transaction's project, or of `project_id` if that permitted it to use a model.
pub async fn find(
    tx: &mut TenantTx,
    project_id: ProjectId,
) -> Result<Option<ProjectBucket>, StoreError> {
    read(tx.connection(), project_id).await
}

/// The project's own bucket, for the operator.
pub async fn show(
    tx: &mut OperatorTx,
    project_id: ProjectId,
) -> Result<Option<ProjectBucket>, StoreError> {
    read(tx.connection(), project_id).await
}

async fn read(
    connection: &mut PgConnection,
    project_id: ProjectId,
) -> Result<Option<ProjectBucket>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, project_id, endpoint, region, bucket, prefix, path_style, access_key_id, secret_access_key, version,
             configured_at
         FROM project_buckets WHERE project_id = $1",
        project_id.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(ProjectBucket::from))
}

/// Those of the projects that have a bucket of their own.
pub async fn of_projects(
    tx: &mut WorkerTx,
    project_ids: &[ProjectId],
) -> Result<Vec<ProjectBucket>, StoreError> {
    let ids: Vec<Uuid> = project_ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, project_id, endpoint, region, bucket, prefix, path_style, access_key_id, secret_access_key, version,
             configured_at
         FROM project_buckets WHERE project_id = ANY($1)",
        &ids
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(ProjectBucket::from).collect())
}

/// The projects that have a bucket of their own.
pub async fn projects(tx: &mut WorkerTx) -> Result<Vec<ProjectId>, StoreError> {
    let ids = sqlx::query_scalar!("SELECT project_id FROM project_buckets ORDER BY project_id")
        .fetch_all(tx.connection())
        .await?;
    Ok(ids.into_iter().map(ProjectId).collect())
}

/// Makes sure, until the transaction's end, that the project's objects are where they were put. For the transaction that
/// writes a row which names one.
///
/// # Errors
/// [`StoreError::BucketChanged`] if the project was given another place since `location` was asked for.
pub async fn hold(tx: &mut TenantTx, location: Location) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock_shared(hashtextextended('project_buckets' || $1::text, 0))",
        tx.project_id().0.to_string()
    )
    .execute(tx.connection())
    .await?;
    // A statement of its own, which sees what whoever had the lock has done.
    let stands = sqlx::query_scalar!(
        "SELECT id FROM project_buckets WHERE project_id = $1",
        tx.project_id().0
    )
    .fetch_optional(tx.connection())
    .await?;
    if Location(stands) == location {
        Ok(())
    } else {
        Err(StoreError::BucketChanged)
    }
}

fn place(project_id: ProjectId, row_id: Uuid) -> Place {
    Place {
        table: TABLE,
        column: COLUMN,
        project_id,
        row_id,
    }
}

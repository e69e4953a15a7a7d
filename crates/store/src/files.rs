//! Files that a tenant uploaded or a job produced. The bytes are in object storage; this is what is known of them.

use domain::{BatchId, FileId, JobId, ProjectId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::deletions::{self, Target};
use crate::number::{from_bigint, to_bigint, to_optional_bigint};
use crate::page::one_more;
use crate::tx::Connection;
use crate::{Page, StoreError, TenantTx, WorkerTx, nul};

/// How far a file has come. The words are OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileStatus {
    /// Whole, not looked at.
    Uploaded,
    /// Whole and looked at: ready for a job.
    Processed,
    /// Whole and useless; the details say why.
    Error,
}

impl FileStatus {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Processed => "processed",
            Self::Error => "error",
        }
    }

    fn read(word: &str) -> Result<Self, StoreError> {
        [Self::Uploaded, Self::Processed, Self::Error]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| StoreError::corrupt("status of a file", word.to_owned()))
    }
}

/// A file as one project owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its id.
    pub id: FileId,
    /// The tenant.
    pub project_id: ProjectId,
    /// As the client called it.
    pub filename: String,
    /// OpenAI's word for what it is for.
    pub purpose: String,
    /// Its length.
    pub size_bytes: u64,
    /// SHA-256 in lower-case hexadecimal digits.
    pub sha256: String,
    /// Lines, if they were counted.
    pub n_lines: Option<u64>,
    /// How far it has come.
    pub status: FileStatus,
    /// Why the status is what it is.
    pub status_details: Option<String>,
    /// When it was uploaded.
    pub created_at: OffsetDateTime,
    /// When it is deleted by itself.
    pub expires_at: Option<OffsetDateTime>,
}

/// Which way a list runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// What to list.
#[derive(Debug, Clone)]
pub struct FileListing {
    /// Only files of this purpose.
    pub purpose: Option<String>,
    /// Only files behind this one.
    pub after: Option<FileId>,
    /// So many at most.
    pub limit: u32,
    /// Which way.
    pub order: Order,
}

/// Stores a file whose object is whole.
///
/// # Errors
/// [`StoreError::NulCharacter`] names the field that cannot be stored.
pub async fn create(tx: &mut TenantTx, file: &File) -> Result<(), StoreError> {
    nul::refuse("filename", &file.filename)?;
    nul::refuse("purpose", &file.purpose)?;
    let status_details = file.status_details.as_deref().map(nul::replace);
    sqlx::query!(
        "INSERT INTO files (id, project_id, filename, purpose, size_bytes, sha256, n_lines, status,
             status_details, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        file.id.0,
        file.project_id.0,
        file.filename,
        file.purpose,
        to_bigint("bytes", file.size_bytes)?,
        file.sha256,
        to_optional_bigint("n_lines", file.n_lines)?,
        file.status.as_str(),
        status_details.as_deref(),
        file.created_at,
        file.expires_at,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The file with this id.
pub async fn find(tx: &mut TenantTx, id: FileId) -> Result<Option<File>, StoreError> {
    let row = sqlx::query_as!(
        FileRow,
        "SELECT id, project_id, filename, purpose, size_bytes, sha256, n_lines, status, status_details,
                created_at, expires_at
         FROM files WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(FileRow::read).transpose()
}

/// One page of the project's files.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not a file of the project.
pub async fn list(tx: &mut TenantTx, listing: &FileListing) -> Result<Page<File>, StoreError> {
    nul::refuse_optional("purpose", listing.purpose.as_deref())?;
    let cursor = match listing.after {
        Some(after) => Some(find(tx, after).await?.ok_or(StoreError::UnknownCursor)?),
        None => None,
    };
    let cursor = cursor.map(|file| (file.created_at, file.id.0)).unzip();
    let rows = match listing.order {
        Order::Descending => newest_first(tx, listing, cursor).await?,
        Order::Ascending => oldest_first(tx, listing, cursor).await?,
    };
    Page::cut(rows, listing.limit, FileRow::read)
}

type Cursor = (Option<OffsetDateTime>, Option<Uuid>);

async fn newest_first(
    tx: &mut TenantTx,
    listing: &FileListing,
    (created_at, id): Cursor,
) -> Result<Vec<FileRow>, StoreError> {
    // Without a cursor the comparison is with the end of all values, so that the index serves both cases.
    Ok(sqlx::query_as!(
        FileRow,
        "SELECT id, project_id, filename, purpose, size_bytes, sha256, n_lines, status, status_details,
                created_at, expires_at
         FROM files
         WHERE project_id = $1 AND ($2::text IS NULL OR purpose = $2)
           AND (created_at, id) < (COALESCE($3::timestamptz, 'infinity'),
                                   COALESCE($4::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         ORDER BY created_at DESC, id DESC LIMIT $5",
        tx.project_id().0,
        listing.purpose,
        created_at,
        id,
        one_more(listing.limit),
    )
    .fetch_all(tx.connection())
    .await?)
}

async fn oldest_first(
    tx: &mut TenantTx,
    listing: &FileListing,
    (created_at, id): Cursor,
) -> Result<Vec<FileRow>, StoreError> {
    Ok(sqlx::query_as!(
        FileRow,
        "SELECT id, project_id, filename, purpose, size_bytes, sha256, n_lines, status, status_details,
                created_at, expires_at
         FROM files
         WHERE project_id = $1 AND ($2::text IS NULL OR purpose = $2)
           AND (created_at, id) > (COALESCE($3::timestamptz, '-infinity'),
                                   COALESCE($4::uuid, '00000000-0000-0000-0000-000000000000'))
         ORDER BY created_at, id LIMIT $5",
        tx.project_id().0,
        listing.purpose,
        created_at,
        id,
        one_more(listing.limit),
    )
    .fetch_all(tx.connection())
    .await?)
}

/// Notes how far a file has come. False if there is none.
pub async fn set_status(
    tx: &mut TenantTx,
    id: FileId,
    status: FileStatus,
    details: Option<&str>,
) -> Result<bool, StoreError> {
    let details = details.map(nul::replace);
    let done = sqlx::query!(
        "UPDATE files SET status = $3, status_details = $4 WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        id.0,
        status.as_str(),
        details.as_deref(),
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What still needs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeededBy {
    /// A job that is not final trains, validates or mixes in its rows.
    Job(JobId),
    /// A batch that is not final has its requests there.
    Batch(BatchId),
}

/// Something that is not finished and reads this file, if there is any.
pub async fn needed_by(tx: &mut TenantTx, id: FileId) -> Result<Option<NeededBy>, StoreError> {
    let job = sqlx::query_scalar!(
        "SELECT id FROM jobs
         WHERE project_id = $1 AND status NOT IN ('succeeded', 'failed', 'cancelled')
           AND (training_file = $2 OR validation_file = $2 OR config #>> '{replay,file}' = $3)
         ORDER BY created_at LIMIT 1",
        tx.project_id().0,
        id.0,
        id.to_string(),
    )
    .fetch_optional(tx.connection())
    .await?;
    if let Some(job) = job {
        return Ok(Some(NeededBy::Job(JobId(job))));
    }
    let batch = sqlx::query_scalar!(
        "SELECT id FROM batches
         WHERE project_id = $1 AND input_file = $2
           AND status NOT IN ('completed', 'failed', 'expired', 'cancelled')
         ORDER BY created_at LIMIT 1",
        tx.project_id().0,
        id.0,
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(batch.map(BatchId).map(NeededBy::Batch))
}

/// Deletes a file; its object follows when the sweeper comes by. False if there is no such file.
pub async fn delete(tx: &mut TenantTx, id: FileId, object_key: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM files WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        id.0
    )
    .execute(tx.connection())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    deletions::enqueue(tx, &Target::Object(object_key.to_owned())).await?;
    Ok(true)
}

/// Files of all projects whose time is up. Each is then deleted in a transaction of its project.
pub async fn expired(
    tx: &mut WorkerTx,
    now: OffsetDateTime,
    limit: u32,
) -> Result<Vec<(ProjectId, FileId)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT project_id, id FROM files WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
        now,
        i64::from(limit)
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ProjectId(row.project_id), FileId(row.id)))
        .collect())
}

struct FileRow {
    id: Uuid,
    project_id: Uuid,
    filename: String,
    purpose: String,
    size_bytes: i64,
    sha256: String,
    n_lines: Option<i64>,
    status: String,
    status_details: Option<String>,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
}

impl FileRow {
    fn read(self) -> Result<File, StoreError> {
        Ok(File {
            id: FileId(self.id),
            project_id: ProjectId(self.project_id),
            filename: self.filename,
            purpose: self.purpose,
            size_bytes: from_bigint("size of a file", self.size_bytes)?,
            sha256: self.sha256,
            n_lines: self
                .n_lines
                .map(|n| from_bigint("lines of a file", n))
                .transpose()?,
            status: FileStatus::read(&self.status)?,
            status_details: self.status_details,
            created_at: self.created_at,
            expires_at: self.expires_at,
        })
    }
}

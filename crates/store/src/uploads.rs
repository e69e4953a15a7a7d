//! Uploads and their parts. A part's bytes are an object; the row says that it is whole.

use domain::upload::Completion;
use domain::{FileId, PartId, ProjectId, Upload, UploadId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::deletions::{self, Target};
use crate::number::{from_bigint, to_bigint};
use crate::tx::Connection;
use crate::{StoreError, TenantTx, WorkerTx, nul};

/// A part of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its id.
    pub id: PartId,
    /// What it is a part of.
    pub upload_id: UploadId,
    /// Its length.
    pub size_bytes: u64,
    /// When it was whole.
    pub created_at: OffsetDateTime,
}

/// Stores a new upload.
///
/// # Errors
/// [`StoreError::NulCharacter`] names the field that cannot be stored.
pub async fn create(tx: &mut TenantTx, upload: &Upload) -> Result<(), StoreError> {
    nul::refuse("filename", &upload.filename)?;
    nul::refuse("purpose", &upload.purpose)?;
    sqlx::query!(
        "INSERT INTO uploads (id, project_id, filename, purpose, size_bytes, expires_after_secs, status,
             created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        upload.id.0,
        upload.project_id.0,
        upload.filename,
        upload.purpose,
        to_bigint("bytes", upload.size_bytes)?,
        upload.expires_after_secs,
        upload.status.as_str(),
        upload.created_at,
        upload.expires_at,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The upload with this id.
pub async fn find(tx: &mut TenantTx, id: UploadId) -> Result<Option<Upload>, StoreError> {
    let row = sqlx::query_as!(
        UploadRow,
        "SELECT id, project_id, filename, purpose, size_bytes, expires_after_secs, status, part_ids, md5, file_id,
                created_at, expires_at
         FROM uploads WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(UploadRow::read).transpose()
}

/// The upload with this id, which nobody else can change before the transaction ends.
pub async fn find_for_update(
    tx: &mut TenantTx,
    id: UploadId,
) -> Result<Option<Upload>, StoreError> {
    let row = sqlx::query_as!(
        UploadRow,
        "SELECT id, project_id, filename, purpose, size_bytes, expires_after_secs, status, part_ids, md5, file_id,
                created_at, expires_at
         FROM uploads WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(UploadRow::read).transpose()
}

/// Stores how an upload ended. Its parts are no longer needed: their rows go, and their objects, all of which lie
/// below `object_prefix`, follow when the sweeper comes by.
pub async fn end(
    tx: &mut TenantTx,
    upload: &Upload,
    object_prefix: &str,
) -> Result<(), StoreError> {
    let (completion, file_id) = upload.completed.clone().unzip();
    let (part_ids, md5) = completion.map(|with| (with.part_ids, with.md5)).unzip();
    let part_ids: Option<Vec<Uuid>> = part_ids.map(|ids| ids.into_iter().map(|id| id.0).collect());
    sqlx::query!(
        "UPDATE uploads SET status = $3, part_ids = $4, md5 = $5, file_id = $6 WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        upload.id.0,
        upload.status.as_str(),
        part_ids.as_deref(),
        md5.flatten(),
        file_id.map(|id| id.0),
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "DELETE FROM upload_parts WHERE project_id = $1 AND upload_id = $2",
        tx.project_id().0,
        upload.id.0
    )
    .execute(tx.connection())
    .await?;
    deletions::enqueue(tx, &Target::Prefix(object_prefix.to_owned())).await
}

/// Stores a part whose object is whole. Hold the upload with [`find_for_update`] first.
pub async fn add_part(tx: &mut TenantTx, part: &Part) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO upload_parts (id, project_id, upload_id, size_bytes, created_at) VALUES ($1, $2, $3, $4, $5)",
        part.id.0,
        tx.project_id().0,
        part.upload_id.0,
        to_bigint("bytes", part.size_bytes)?,
        part.created_at,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Every part of an upload.
pub async fn parts(tx: &mut TenantTx, upload_id: UploadId) -> Result<Vec<Part>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, size_bytes, created_at FROM upload_parts WHERE project_id = $1 AND upload_id = $2",
        tx.project_id().0,
        upload_id.0
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Part {
                id: PartId(row.id),
                upload_id,
                size_bytes: from_bigint("size of a part", row.size_bytes)?,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// Pending uploads of all projects whose time was over at `before`. Each is then ended in a transaction of its
/// project.
pub async fn expired(
    tx: &mut WorkerTx,
    before: OffsetDateTime,
    limit: u32,
) -> Result<Vec<(ProjectId, UploadId)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT project_id, id FROM uploads WHERE status = 'pending' AND expires_at <= $1
         ORDER BY expires_at LIMIT $2",
        before,
        i64::from(limit)
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ProjectId(row.project_id), UploadId(row.id)))
        .collect())
}

struct UploadRow {
    id: Uuid,
    project_id: Uuid,
    filename: String,
    purpose: String,
    size_bytes: i64,
    expires_after_secs: Option<i64>,
    status: String,
    part_ids: Option<Vec<Uuid>>,
    md5: Option<String>,
    file_id: Option<Uuid>,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

impl UploadRow {
    fn read(self) -> Result<Upload, StoreError> {
        let completion = self.part_ids.map(|ids| Completion {
            part_ids: ids.into_iter().map(PartId).collect(),
            md5: self.md5,
        });
        Ok(Upload {
            id: UploadId(self.id),
            project_id: ProjectId(self.project_id),
            filename: self.filename,
            purpose: self.purpose,
            size_bytes: from_bigint("size of an upload", self.size_bytes)?,
            expires_after_secs: self.expires_after_secs,
            status: self
                .status
                .parse()
                .map_err(|error: String| StoreError::corrupt("status of an upload", error))?,
            completed: completion.zip(self.file_id.map(FileId)),
            created_at: self.created_at,
            expires_at: self.expires_at,
        })
    }
}

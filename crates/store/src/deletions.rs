//! Objects that nothing names any more. The row that named one goes first, in the same transaction in which the
//! deletion is written down here; a sweeper then deletes the object. A crash in between leaves work, never a row without
//! its object.

use std::collections::HashSet;

use domain::{FileId, JobId, ProjectId, UploadId};
use sqlx::types::Uuid;

use crate::tx::Connection;
use crate::{StoreError, TenantTx, WorkerTx};

/// What to delete in object storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One object.
    Object(String),
    /// Everything below a prefix, which ends with a slash: one is added if it is missing, or the prefix of step 1
    /// would take step 10 along.
    Prefix(String),
}

/// A deletion that a sweeper took on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDeletion {
    /// For [`done`].
    pub id: i64,
    /// Whose it was.
    pub project_id: ProjectId,
    /// What to delete.
    pub target: Target,
}

/// Writes down that something is to be deleted.
pub async fn enqueue(tx: &mut TenantTx, target: &Target) -> Result<(), StoreError> {
    insert(tx, target, None).await
}

/// Writes down that something is to be deleted, once the job `wait_for` is final.
pub(crate) async fn insert(
    tx: &mut TenantTx,
    target: &Target,
    wait_for: Option<JobId>,
) -> Result<(), StoreError> {
    let (key, is_prefix) = match target {
        Target::Object(key) => (key.clone(), false),
        Target::Prefix(prefix) => (format!("{}/", prefix.trim_end_matches('/')), true),
    };
    sqlx::query!(
        "INSERT INTO object_deletions (project_id, job_id, key, is_prefix) VALUES ($1, $2, $3, $4)",
        tx.project_id().0,
        wait_for.map(|id| id.0),
        key,
        is_prefix,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Takes on up to `limit` deletions. Commit, delete the objects, then say [`done`]; whoever does not within five
/// minutes leaves them to the next sweeper. Deleting twice does no harm.
pub async fn take(tx: &mut WorkerTx, limit: u32) -> Result<Vec<PendingDeletion>, StoreError> {
    let rows = sqlx::query!(
        "UPDATE object_deletions d SET not_before = now() + interval '5 minutes'
         FROM (
             SELECT w.id FROM object_deletions w
             WHERE w.not_before <= now() AND (w.job_id IS NULL OR EXISTS (
                 SELECT FROM jobs j
                 WHERE j.project_id = w.project_id AND j.id = w.job_id
                   AND j.status IN ('succeeded', 'failed', 'cancelled')
             ))
             ORDER BY w.not_before, w.id LIMIT $1 FOR UPDATE OF w SKIP LOCKED
         ) due
         WHERE d.id = due.id
         RETURNING d.id, d.project_id, d.key, d.is_prefix",
        i64::from(limit)
    )
    .fetch_all(tx.connection())
    .await?;
    let pending = rows.into_iter().map(|row| PendingDeletion {
        id: row.id,
        project_id: ProjectId(row.project_id),
        target: if row.is_prefix {
            Target::Prefix(row.key)
        } else {
            Target::Object(row.key)
        },
    });
    Ok(pending.collect())
}

/// The objects are gone.
pub async fn done(tx: &mut WorkerTx, ids: &[i64]) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM object_deletions WHERE id = ANY($1)", ids)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Those of `ids` that are files of some project. The objects of the others are orphans.
pub async fn live_files(tx: &mut WorkerTx, ids: &[FileId]) -> Result<HashSet<FileId>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_scalar!("SELECT id FROM files WHERE id = ANY($1)", &ids)
        .fetch_all(tx.connection())
        .await?;
    Ok(rows.into_iter().map(FileId).collect())
}

/// Those of `prefixes` that a checkpoint or a model names, with or without a slash at the end.
pub async fn live_prefixes(
    tx: &mut WorkerTx,
    prefixes: &[String],
) -> Result<HashSet<String>, StoreError> {
    let rows = sqlx::query_scalar!(
        r#"SELECT p AS "prefix!" FROM unnest($1::text[]) AS p
           WHERE EXISTS (SELECT FROM checkpoints c
                         WHERE c.object_prefix IN (rtrim(p, '/'), rtrim(p, '/') || '/'))
              OR EXISTS (SELECT FROM fine_tuned_models m
                         WHERE m.deleted_at IS NULL
                           AND m.adapter_prefix IN (rtrim(p, '/'), rtrim(p, '/') || '/'))"#,
        prefixes
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().collect())
}

/// Those of `ids` that are jobs and not final: what lies below their prefixes may be about to be named.
pub async fn open_jobs(tx: &mut WorkerTx, ids: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_scalar!(
        "SELECT id FROM jobs
         WHERE id = ANY($1) AND status NOT IN ('succeeded', 'failed', 'cancelled')",
        &ids
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(JobId).collect())
}

/// Those of `ids` that are uploads and pending: what lies below their prefixes may be, or become, their parts.
pub async fn open_uploads(
    tx: &mut WorkerTx,
    ids: &[UploadId],
) -> Result<HashSet<UploadId>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_scalar!(
        "SELECT id FROM uploads WHERE id = ANY($1) AND status = 'pending'",
        &ids
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(UploadId).collect())
}

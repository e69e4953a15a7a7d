//! Permissions: models that one project lets another project of the organization use.
//!
//! What a permission opens is decided by Postgres: the policy of `fine_tuned_models` shows a project the models that it
//! was permitted, next to its own.

use domain::{PermissionId, ProjectId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::page::one_more;
use crate::tx::Connection;
use crate::{OrgTx, Page, StoreError, nul};

/// That a project may use a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// Its id.
    pub id: PermissionId,
    /// Who may use the model.
    pub project_id: ProjectId,
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// A model as permissions name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermittedModel {
    model_id: Uuid,
    owner: Uuid,
}

/// Which permissions of a model to list, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionListing {
    /// Only this project's.
    pub project_id: Option<ProjectId>,
    /// The last element of the page before.
    pub after: Option<PermissionId>,
    /// How many at most.
    pub limit: u32,
    /// Oldest first.
    pub ascending: bool,
}

/// The organization's model or checkpoint with this name, unless it was deleted.
pub async fn model(tx: &mut OrgTx, name: &str) -> Result<Option<PermittedModel>, StoreError> {
    nul::refuse("model", name)?;
    let row = sqlx::query!(
        "SELECT id, project_id FROM fine_tuned_models WHERE name = $1 AND deleted_at IS NULL",
        name
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| PermittedModel {
        model_id: row.id,
        owner: row.project_id,
    }))
}

/// Lets a project use a model. What it may already, it may since then.
///
/// # Errors
/// [`StoreError::MissingReference`] if the project is not of the transaction's organization.
pub async fn create(
    tx: &mut OrgTx,
    model: &PermittedModel,
    project_id: ProjectId,
    now: OffsetDateTime,
) -> Result<Permission, StoreError> {
    let org_id = tx.org_id().0;
    sqlx::query!(
        "INSERT INTO checkpoint_permissions (id, project_id, org_id, owner_project_id, model_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (model_id, project_id) DO NOTHING",
        PermissionId::new().0,
        project_id.0,
        org_id,
        model.owner,
        model.model_id,
        now,
    )
    .execute(tx.connection())
    .await?;
    let row = sqlx::query_as!(
        PermissionRow,
        "SELECT id, project_id, created_at FROM checkpoint_permissions
         WHERE org_id = $1 AND model_id = $2 AND project_id = $3",
        org_id,
        model.model_id,
        project_id.0,
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(row.read())
}

/// One page of a model's permissions.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not one of them.
pub async fn list(
    tx: &mut OrgTx,
    model: &PermittedModel,
    listing: PermissionListing,
) -> Result<Page<Permission>, StoreError> {
    if let Some(after) = listing.after
        && !exists(tx, model, after).await?
    {
        return Err(StoreError::UnknownCursor);
    }
    let rows = sqlx::query_as!(
        PermissionRow,
        "SELECT id, project_id, created_at FROM checkpoint_permissions
         WHERE org_id = $1 AND model_id = $2 AND ($3::uuid IS NULL OR project_id = $3)
           AND ($4::uuid IS NULL OR CASE WHEN $5 THEN id > $4 ELSE id < $4 END)
         ORDER BY CASE WHEN $5 THEN id END ASC, CASE WHEN NOT $5 THEN id END DESC LIMIT $6",
        tx.org_id().0,
        model.model_id,
        listing.project_id.map(|id| id.0),
        listing.after.map(|id| id.0),
        listing.ascending,
        one_more(listing.limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, listing.limit, |row| Ok(row.read()))
}

/// Takes a permission back: from now on the project does not see the model. False if there is no such permission.
pub async fn delete(
    tx: &mut OrgTx,
    model: &PermittedModel,
    id: PermissionId,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM checkpoint_permissions WHERE org_id = $1 AND model_id = $2 AND id = $3",
        tx.org_id().0,
        model.model_id,
        id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn exists(
    tx: &mut OrgTx,
    model: &PermittedModel,
    id: PermissionId,
) -> Result<bool, StoreError> {
    let found = sqlx::query!(
        "SELECT id FROM checkpoint_permissions WHERE org_id = $1 AND model_id = $2 AND id = $3",
        tx.org_id().0,
        model.model_id,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(found.is_some())
}

struct PermissionRow {
    id: Uuid,
    project_id: Uuid,
    created_at: OffsetDateTime,
}

impl PermissionRow {
    fn read(self) -> Permission {
        Permission {
            id: PermissionId(self.id),
            project_id: ProjectId(self.project_id),
            created_at: self.created_at,
        }
    }
}

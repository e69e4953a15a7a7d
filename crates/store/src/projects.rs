//! Projects: the tenants.

use domain::{OrgId, ProjectId};
use time::OffsetDateTime;

use crate::tx::Connection;
use crate::{OperatorTx, StoreError, TenantTx, nul};

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id: the tenant key of everything in it.
    pub id: ProjectId,
    /// Whose it is.
    pub org_id: OrgId,
    /// For people.
    pub name: String,
    /// Lower-case letters, digits and hyphens; unique within the organization.
    pub slug: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// Stores a new project.
///
/// # Errors
/// [`StoreError::Exists`] if the organization has a project with this slug.
pub async fn create(tx: &mut OperatorTx, project: &Project) -> Result<(), StoreError> {
    nul::refuse("name", &project.name)?;
    nul::refuse("slug", &project.slug)?;
    sqlx::query!(
        "INSERT INTO projects (id, org_id, name, slug, created_at) VALUES ($1, $2, $3, $4, $5)",
        project.id.0,
        project.org_id.0,
        project.name,
        project.slug,
        project.created_at,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The organization's project with this slug.
pub async fn find_by_slug(
    tx: &mut OperatorTx,
    org_id: OrgId,
    slug: &str,
) -> Result<Option<Project>, StoreError> {
    nul::refuse("slug", slug)?;
    let row = sqlx::query!(
        "SELECT id, org_id, name, slug, created_at FROM projects WHERE org_id = $1 AND slug = $2",
        org_id.0,
        slug
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Project {
        id: ProjectId(row.id),
        org_id: OrgId(row.org_id),
        name: row.name,
        slug: row.slug,
        created_at: row.created_at,
    }))
}

/// The transaction's own project.
pub async fn own(tx: &mut TenantTx) -> Result<Option<Project>, StoreError> {
    let row = sqlx::query!(
        "SELECT id, org_id, name, slug, created_at FROM projects WHERE id = $1",
        tx.project_id().0
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Project {
        id: ProjectId(row.id),
        org_id: OrgId(row.org_id),
        name: row.name,
        slug: row.slug,
        created_at: row.created_at,
    }))
}

/// Whether every request of the transaction's project is answered in OpenAI's own words only.
pub async fn speaks_openai(tx: &mut TenantTx) -> Result<bool, StoreError> {
    let compat = sqlx::query_scalar!(
        "SELECT compat FROM projects WHERE id = $1",
        tx.project_id().0
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(compat.flatten().as_deref() == Some("openai"))
}

/// Sets whether every request of the project is answered in OpenAI's own words only.
pub async fn set_speaks_openai(
    tx: &mut OperatorTx,
    id: ProjectId,
    speaks_openai: bool,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE projects SET compat = $2 WHERE id = $1",
        id.0,
        speaks_openai.then_some("openai"),
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

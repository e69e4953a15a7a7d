//! Projects: the tenants.

use domain::{OrgId, ProjectId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::page::one_more;
use crate::tx::Connection;
use crate::{AdminTx, OperatorTx, Page, StoreError, TenantTx, nul, slug};

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

/// A project as its administrators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedProject {
    /// The project.
    pub project: Project,
    /// Since when nobody is let into it.
    pub archived_at: Option<OffsetDateTime>,
}

/// Stores a new project.
///
/// # Errors
/// [`StoreError::Exists`] if the organization has a project with this slug.
pub async fn create(tx: &mut impl AdminTx, project: &Project) -> Result<(), StoreError> {
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

/// Makes a project with this name. Names may repeat; the slug is made of the name, and told apart where it is taken.
pub async fn create_named(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    name: &str,
    now: OffsetDateTime,
) -> Result<Project, StoreError> {
    nul::refuse("name", name)?;
    let id = ProjectId::new();
    for slug in slug::candidates(name, "project", id.0) {
        let made = sqlx::query!(
            "INSERT INTO projects (id, org_id, name, slug, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (org_id, slug) DO NOTHING",
            id.0,
            org_id.0,
            name,
            slug,
            now,
        )
        .execute(tx.connection())
        .await?;
        if made.rows_affected() == 1 {
            return Ok(Project {
                id,
                org_id,
                name: name.to_owned(),
                slug,
                created_at: now,
            });
        }
    }
    Err(StoreError::Exists {
        constraint: "projects_org_id_slug_key".to_owned(),
    })
}

/// The organization's project with this slug.
pub async fn find_by_slug(
    tx: &mut OperatorTx,
    org_id: OrgId,
    slug: &str,
) -> Result<Option<Project>, StoreError> {
    nul::refuse("slug", slug)?;
    let row = sqlx::query_as!(
        ProjectRow,
        "SELECT id, org_id, name, slug, created_at, archived_at FROM projects
         WHERE org_id = $1 AND slug = $2",
        org_id.0,
        slug
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| row.read().project))
}

/// The organization's project, archived or not.
pub async fn find(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    id: ProjectId,
) -> Result<Option<ListedProject>, StoreError> {
    let row = sqlx::query_as!(
        ProjectRow,
        "SELECT id, org_id, name, slug, created_at, archived_at FROM projects
         WHERE org_id = $1 AND id = $2",
        org_id.0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(ProjectRow::read))
}

/// One page of the organization's projects, newest first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not one of them.
pub async fn list(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    include_archived: bool,
    after: Option<ProjectId>,
    limit: u32,
) -> Result<Page<ListedProject>, StoreError> {
    if let Some(after) = after
        && find(tx, org_id, after).await?.is_none()
    {
        return Err(StoreError::UnknownCursor);
    }
    let rows = sqlx::query_as!(
        ProjectRow,
        "SELECT id, org_id, name, slug, created_at, archived_at FROM projects
         WHERE org_id = $1 AND ($2 OR archived_at IS NULL) AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4",
        org_id.0,
        include_archived,
        after.map(|id| id.0),
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, |row| Ok(row.read()))
}

/// Every project of the organization that is not archived, in the order of their ids.
pub async fn list_open(tx: &mut impl AdminTx, org_id: OrgId) -> Result<Vec<ProjectId>, StoreError> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM projects WHERE org_id = $1 AND archived_at IS NULL ORDER BY id",
        org_id.0
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(ids.into_iter().map(ProjectId).collect())
}

/// Gives the project another name. Its slug stays.
pub async fn rename(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    id: ProjectId,
    name: &str,
) -> Result<(), StoreError> {
    nul::refuse("name", name)?;
    sqlx::query!(
        "UPDATE projects SET name = $3 WHERE org_id = $1 AND id = $2",
        org_id.0,
        id.0,
        name
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Lets nobody in from now on. False if there is no such project or it was archived before; there is no way back, as at
/// OpenAI's. Its work goes on: see [`crate::archiving`].
pub(crate) async fn archive(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    id: ProjectId,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE projects SET archived_at = $3 WHERE org_id = $1 AND id = $2 AND archived_at IS NULL",
        org_id.0,
        id.0,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The transaction's own project.
pub async fn own(tx: &mut TenantTx) -> Result<Option<Project>, StoreError> {
    let row = sqlx::query_as!(
        ProjectRow,
        "SELECT id, org_id, name, slug, created_at, archived_at FROM projects WHERE id = $1",
        tx.project_id().0
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| row.read().project))
}

struct ProjectRow {
    id: Uuid,
    org_id: Uuid,
    name: String,
    slug: String,
    created_at: OffsetDateTime,
    archived_at: Option<OffsetDateTime>,
}

impl ProjectRow {
    fn read(self) -> ListedProject {
        ListedProject {
            project: Project {
                id: ProjectId(self.id),
                org_id: OrgId(self.org_id),
                name: self.name,
                slug: self.slug,
                created_at: self.created_at,
            },
            archived_at: self.archived_at,
        }
    }
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

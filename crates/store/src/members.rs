//! Users in projects, each with a role.

use domain::{OrgId, ProjectId, Role, UserId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::api_keys::read_word;
use crate::page::one_more;
use crate::{AdminTx, Page, StoreError};

/// A user in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user.
    pub user_id: UserId,
    /// Their email.
    pub email: String,
    /// Their name.
    pub name: String,
    /// What they may do in the project.
    pub role: Role,
    /// When they were added to it.
    pub created_at: OffsetDateTime,
}

/// Gives a user a role in a project: their first there or another one.
///
/// # Errors
/// [`StoreError::MissingReference`] if project and user are not both of this organization.
pub async fn set(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    user_id: UserId,
    role: Role,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO project_members (project_id, user_id, org_id, role, created_at)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (project_id, user_id) DO UPDATE SET role = EXCLUDED.role",
        project_id.0,
        user_id.0,
        org_id.0,
        role.as_str(),
        now,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The user in the project.
pub async fn find(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    user_id: UserId,
) -> Result<Option<Member>, StoreError> {
    let row = sqlx::query_as!(
        MemberRow,
        "SELECT m.user_id, u.email, u.name, m.role, m.created_at
         FROM project_members m JOIN users u ON u.id = m.user_id
         WHERE m.org_id = $1 AND m.project_id = $2 AND m.user_id = $3",
        org_id.0,
        project_id.0,
        user_id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(MemberRow::read).transpose()
}

/// One page of a project's users, those who were added last first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not one of them.
pub async fn list(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    after: Option<UserId>,
    limit: u32,
) -> Result<Page<Member>, StoreError> {
    let cursor = match after {
        Some(after) => {
            let found = find(tx, org_id, project_id, after).await?;
            Some(found.ok_or(StoreError::UnknownCursor)?)
        }
        None => None,
    };
    let (created_at, user_id) = cursor
        .map(|member| (member.created_at, member.user_id.0))
        .unzip();
    let rows = sqlx::query_as!(
        MemberRow,
        "SELECT m.user_id, u.email, u.name, m.role, m.created_at
         FROM project_members m JOIN users u ON u.id = m.user_id
         WHERE m.org_id = $1 AND m.project_id = $2
           AND ($3::timestamptz IS NULL OR (m.created_at, m.user_id) < ($3, $4::uuid))
         ORDER BY m.created_at DESC, m.user_id DESC LIMIT $5",
        org_id.0,
        project_id.0,
        created_at,
        user_id,
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, MemberRow::read)
}

/// Takes a user out of a project. False if they were not in it.
pub async fn remove(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    user_id: UserId,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM project_members WHERE org_id = $1 AND project_id = $2 AND user_id = $3",
        org_id.0,
        project_id.0,
        user_id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

struct MemberRow {
    user_id: Uuid,
    email: String,
    name: String,
    role: String,
    created_at: OffsetDateTime,
}

impl MemberRow {
    fn read(self) -> Result<Member, StoreError> {
        Ok(Member {
            user_id: UserId(self.user_id),
            email: self.email,
            name: self.name,
            role: read_word("role in a project", &self.role)?,
            created_at: self.created_at,
        })
    }
}

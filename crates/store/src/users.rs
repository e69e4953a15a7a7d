//! Users: the people of an organization.

use domain::{OrgId, OrgRole, UserId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::api_keys::read_word;
use crate::page::one_more;
use crate::{AdminTx, Page, StoreError, nul};

/// One person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// The organization.
    pub org_id: OrgId,
    /// In lower case; unique within the organization.
    pub email: String,
    /// For people.
    pub name: String,
    /// What they are in the organization.
    pub role: OrgRole,
    /// When they were added.
    pub created_at: OffsetDateTime,
    /// When a token of theirs was last seen, to the minute.
    pub last_seen_at: Option<OffsetDateTime>,
}

/// The user with this email, made if there is none, and taken back in if they were removed. An existing user keeps name
/// and role. The first token whose verified email is this one will be theirs.
pub async fn add(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    email: &str,
    role: OrgRole,
    now: OffsetDateTime,
) -> Result<User, StoreError> {
    nul::refuse("email", email)?;
    let email = email.to_lowercase();
    let name = email.split('@').next().unwrap_or_default();
    let row = sqlx::query_as!(
        UserRow,
        "INSERT INTO users (id, org_id, email, name, role, created_at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (org_id, email) DO UPDATE SET deleted_at = NULL
         RETURNING id, org_id, email, name, role, created_at, last_seen_at",
        UserId::new().0,
        org_id.0,
        email,
        name,
        role.as_str(),
        now,
    )
    .fetch_one(tx.connection())
    .await?;
    row.read()
}

/// The user, unless they were removed.
pub async fn find(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    id: UserId,
) -> Result<Option<User>, StoreError> {
    let row = sqlx::query_as!(
        UserRow,
        "SELECT id, org_id, email, name, role, created_at, last_seen_at FROM users
         WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL",
        org_id.0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(UserRow::read).transpose()
}

/// One page of the organization's users, newest first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not one of them.
pub async fn list(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    after: Option<UserId>,
    limit: u32,
) -> Result<Page<User>, StoreError> {
    if let Some(after) = after
        && find(tx, org_id, after).await?.is_none()
    {
        return Err(StoreError::UnknownCursor);
    }
    let rows = sqlx::query_as!(
        UserRow,
        "SELECT id, org_id, email, name, role, created_at, last_seen_at FROM users
         WHERE org_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3",
        org_id.0,
        after.map(|id| id.0),
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, UserRow::read)
}

/// Makes the user an owner or a reader of the organization.
pub async fn set_role(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    id: UserId,
    role: OrgRole,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE users SET role = $3 WHERE org_id = $1 AND id = $2",
        org_id.0,
        id.0,
        role.as_str()
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Removes a user from the organization and all its projects. False if there is no such user.
pub async fn remove(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    id: UserId,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE users SET deleted_at = $3, role = 'reader'
         WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL",
        org_id.0,
        id.0,
        now
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "DELETE FROM project_members WHERE org_id = $1 AND user_id = $2",
        org_id.0,
        id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) struct UserRow {
    pub(crate) id: Uuid,
    pub(crate) org_id: Uuid,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) last_seen_at: Option<OffsetDateTime>,
}

impl UserRow {
    pub(crate) fn read(self) -> Result<User, StoreError> {
        Ok(User {
            id: UserId(self.id),
            org_id: OrgId(self.org_id),
            email: self.email,
            name: self.name,
            role: read_word("role of a user", &self.role)?,
            created_at: self.created_at,
            last_seen_at: self.last_seen_at,
        })
    }
}

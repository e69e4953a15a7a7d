//! From a verified token's subject to users and what they may do. The token itself is checked by the API.

use std::collections::{BTreeMap, HashSet};

use domain::{OrgId, ProjectId, Role, UserId};
use time::OffsetDateTime;

use crate::api_keys::read_word;
use crate::tx::Connection;
use crate::users::{User, UserRow};
use crate::{AuthTx, StoreError, nul};

/// What the identity provider says of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Who says so.
    pub issuer: String,
    /// What the issuer calls them; it never gives the same to another.
    pub subject: String,
    /// Their email, if the issuer says that it is verified.
    pub verified_email: Option<String>,
    /// Their name.
    pub name: Option<String>,
}

/// A project as somebody who signs in may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenProject {
    /// The project.
    pub project_id: ProjectId,
    /// Its organization.
    pub org_id: OrgId,
    /// The organization's part in model names.
    pub org_slug: String,
}

/// A user in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The user.
    pub user_id: UserId,
    /// The project.
    pub project_id: ProjectId,
    /// Whether a group of their token gives them a role there. Else only one that was set here does.
    pub by_group: bool,
}

/// The users that a subject is: at most one in each organization.
pub async fn users(
    tx: &mut AuthTx,
    subject: &Subject,
    now: OffsetDateTime,
) -> Result<Vec<User>, StoreError> {
    nul::refuse("sub", &subject.subject)?;
    let rows = sqlx::query_as!(
        UserRow,
        "SELECT u.id, u.org_id, u.email, u.name, u.role, u.created_at, u.last_seen_at
         FROM users u JOIN organizations o ON o.id = u.org_id
         WHERE u.issuer = $1 AND u.subject = $2 AND u.deleted_at IS NULL AND o.archived_at IS NULL
         ORDER BY u.id",
        subject.issuer,
        subject.subject
    )
    .fetch_all(tx.connection())
    .await?;
    sqlx::query!(
        "UPDATE users SET last_seen_at = $3
         WHERE issuer = $1 AND subject = $2
           AND (last_seen_at IS NULL OR last_seen_at < $3::timestamptz - interval '1 minute')",
        subject.issuer,
        subject.subject,
        now
    )
    .execute(tx.connection())
    .await?;
    rows.into_iter().map(UserRow::read).collect()
}

/// Tells every organization that has only the subject's verified email yet that it is this subject, from now on. The
/// users of whom that is new.
pub async fn link(tx: &mut AuthTx, subject: &Subject) -> Result<Vec<User>, StoreError> {
    let Some(email) = &subject.verified_email else {
        return Ok(Vec::new());
    };
    nul::refuse("sub", &subject.subject)?;
    nul::refuse("email", email)?;
    // An organization that knows the subject already does not get it twice.
    let rows = sqlx::query_as!(
        UserRow,
        "UPDATE users u SET issuer = $1, subject = $2
         WHERE u.email = lower($3) AND u.subject IS NULL AND NOT EXISTS (
             SELECT FROM users other
             WHERE other.org_id = u.org_id AND other.issuer = $1 AND other.subject = $2)
         RETURNING id, org_id, email, name, role, created_at, last_seen_at",
        subject.issuer,
        subject.subject,
        email
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter().map(UserRow::read).collect()
}

/// Makes the subject a user of an organization, as a reader. None if it is one that was removed: who was taken out does
/// not come back by signing in, nor under an email that belongs to somebody else there.
pub async fn create_user(
    tx: &mut AuthTx,
    org_id: OrgId,
    subject: &Subject,
    now: OffsetDateTime,
) -> Result<Option<User>, StoreError> {
    let email = match &subject.verified_email {
        Some(email) => email.to_lowercase(),
        // Not an address: what nobody can have as one, and unique as the subject is.
        None => format!("{} at {}", subject.subject, subject.issuer).to_lowercase(),
    };
    let name = subject.name.as_deref().unwrap_or(&email);
    nul::refuse("name", name)?;
    let row = sqlx::query_as!(
        UserRow,
        "INSERT INTO users (id, org_id, email, name, role, issuer, subject, created_at, last_seen_at)
         VALUES ($1, $2, $3, $4, 'reader', $5, $6, $7, $7)
         ON CONFLICT DO NOTHING
         RETURNING id, org_id, email, name, role, created_at, last_seen_at",
        UserId::new().0,
        org_id.0,
        email,
        name,
        subject.issuer,
        subject.subject,
        now,
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(UserRow::read).transpose()
}

/// The roles that were set for a user, by project. Archived projects are left out.
pub async fn roles(
    tx: &mut AuthTx,
    user_id: UserId,
) -> Result<BTreeMap<ProjectId, Role>, StoreError> {
    let rows = sqlx::query!(
        "SELECT m.project_id, m.role FROM project_members m JOIN projects p ON p.id = m.project_id
         WHERE m.user_id = $1 AND p.archived_at IS NULL",
        user_id.0
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok((
                ProjectId(row.project_id),
                read_word("role in a project", &row.role)?,
            ))
        })
        .collect()
}

/// Those of `ids` that are in use.
pub async fn open_projects(
    tx: &mut AuthTx,
    ids: &[ProjectId],
) -> Result<Vec<OpenProject>, StoreError> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        "SELECT p.id, p.org_id, o.slug FROM projects p JOIN organizations o ON o.id = p.org_id
         WHERE p.id = ANY($1) AND p.archived_at IS NULL AND o.archived_at IS NULL ORDER BY p.id",
        &ids
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| OpenProject {
            project_id: ProjectId(row.id),
            org_id: OrgId(row.org_id),
            org_slug: row.slug,
        })
        .collect())
}

/// Those of `seats` that are taken still: by somebody who has a role there, in a project that is in use.
pub async fn held(tx: &mut AuthTx, seats: &[Seat]) -> Result<HashSet<Seat>, StoreError> {
    let users: Vec<_> = seats.iter().map(|seat| seat.user_id.0).collect();
    let projects: Vec<_> = seats.iter().map(|seat| seat.project_id.0).collect();
    let by_group: Vec<_> = seats.iter().map(|seat| seat.by_group).collect();
    let rows = sqlx::query!(
        r#"SELECT w.user_id AS "user_id!", w.project_id AS "project_id!", w.by_group AS "by_group!"
           FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS w (user_id, project_id, by_group)
           JOIN users u ON u.id = w.user_id
           JOIN projects p ON p.id = w.project_id
           JOIN organizations o ON o.id = p.org_id
           WHERE u.deleted_at IS NULL AND p.archived_at IS NULL AND o.archived_at IS NULL
             AND (w.by_group OR EXISTS (SELECT FROM project_members m
                                        WHERE m.project_id = w.project_id AND m.user_id = w.user_id))"#,
        &users,
        &projects,
        &by_group,
    )
    .fetch_all(tx.connection())
    .await?;
    let held = rows.into_iter().map(|row| Seat {
        user_id: UserId(row.user_id),
        project_id: ProjectId(row.project_id),
        by_group: row.by_group,
    });
    Ok(held.collect())
}

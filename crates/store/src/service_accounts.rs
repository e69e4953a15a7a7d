//! Service accounts: programs with a role in one project. Each acts through its API keys.

use domain::{ApiKeyId, OrgId, ProjectId, Role, ServiceAccountId};
use serde_json::json;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::api_keys::{self, read_word};
use crate::audit::Act;
use crate::page::one_more;
use crate::{AdminTx, Page, StoreError, nul};

/// What the key is called that an account gets when it is made.
pub const FIRST_KEY: &str = "Secret Key";

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its id.
    pub id: ServiceAccountId,
    /// The project that it works in.
    pub project_id: ProjectId,
    /// That project's organization.
    pub org_id: OrgId,
    /// For people.
    pub name: String,
    /// What its keys may do.
    pub role: Role,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// What was done to a service account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountAct {
    /// It was made, with this key if it got one.
    Created(Option<ApiKeyId>),
    /// It was deleted.
    Deleted,
}

impl ServiceAccount {
    /// That `act` was done to it, as the audit log says it.
    pub fn act(&self, act: AccountAct) -> Act {
        let (action, details) = match act {
            AccountAct::Created(key) => {
                let details = json!({
                    "name": self.name,
                    "role": self.role.as_str(),
                    "api_key_id": key.map(|id| id.to_string()),
                });
                ("service_account.created", details)
            }
            AccountAct::Deleted => ("service_account.deleted", json!({})),
        };
        Act::new(action, "organization.project.service_account", self.id)
            .project(self.project_id)
            .details(details)
    }
}

/// Stores a new service account. It can do nothing until it has a key.
///
/// # Errors
/// [`StoreError::MissingReference`] if the project is not of that organization.
pub async fn create(tx: &mut impl AdminTx, account: &ServiceAccount) -> Result<(), StoreError> {
    nul::refuse("name", &account.name)?;
    sqlx::query!(
        "INSERT INTO service_accounts (id, project_id, org_id, name, role, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        account.id.0,
        account.project_id.0,
        account.org_id.0,
        account.name,
        account.role.as_str(),
        account.created_at,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The project's service account, unless it was deleted.
pub async fn find(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    id: ServiceAccountId,
) -> Result<Option<ServiceAccount>, StoreError> {
    let row = sqlx::query_as!(
        AccountRow,
        "SELECT id, project_id, org_id, name, role, created_at FROM service_accounts
         WHERE org_id = $1 AND project_id = $2 AND id = $3 AND deleted_at IS NULL",
        org_id.0,
        project_id.0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(AccountRow::read).transpose()
}

/// One page of the project's service accounts, newest first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not one of them.
pub async fn list(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    after: Option<ServiceAccountId>,
    limit: u32,
) -> Result<Page<ServiceAccount>, StoreError> {
    if let Some(after) = after
        && find(tx, org_id, project_id, after).await?.is_none()
    {
        return Err(StoreError::UnknownCursor);
    }
    let rows = sqlx::query_as!(
        AccountRow,
        "SELECT id, project_id, org_id, name, role, created_at FROM service_accounts
         WHERE org_id = $1 AND project_id = $2 AND deleted_at IS NULL AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4",
        org_id.0,
        project_id.0,
        after.map(|id| id.0),
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, AccountRow::read)
}

/// Deletes a service account and revokes its keys. False if there is no such account.
pub async fn delete(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    project_id: ProjectId,
    id: ServiceAccountId,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE service_accounts SET deleted_at = $4
         WHERE org_id = $1 AND project_id = $2 AND id = $3 AND deleted_at IS NULL",
        org_id.0,
        project_id.0,
        id.0,
        now
    )
    .execute(tx.connection())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    api_keys::revoke_of(tx, id, now).await?;
    Ok(true)
}

struct AccountRow {
    id: Uuid,
    project_id: Uuid,
    org_id: Uuid,
    name: String,
    role: String,
    created_at: OffsetDateTime,
}

impl AccountRow {
    fn read(self) -> Result<ServiceAccount, StoreError> {
        Ok(ServiceAccount {
            id: ServiceAccountId(self.id),
            project_id: ProjectId(self.project_id),
            org_id: OrgId(self.org_id),
            name: self.name,
            role: read_word("role of a service account", &self.role)?,
            created_at: self.created_at,
        })
    }
}

//! API keys: made, shown once, kept as a keyed hash, looked up on every request.

mod acts;
mod authenticate;
mod rotation;
mod secret;

pub use acts::KeyAct;
pub use authenticate::{Principal, authenticate, in_use};
pub use rotation::{RotationRefused, rotate};
pub use secret::{KeyKind, Pepper, PepperError, Secret};

use domain::{ApiKeyId, OrgId, ProjectId, Role, Scopes, ServiceAccountId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::page::one_more;
use crate::tx::Connection;
use crate::{AdminTx, OperatorTx, Page, StoreError, nul};

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Whose it will be.
    pub org_id: OrgId,
    /// The project it opens; none makes an admin key.
    pub project_id: Option<ProjectId>,
    /// For people.
    pub name: String,
    /// From when on it is refused.
    pub expires_at: Option<OffsetDateTime>,
}

impl NewApiKey {
    fn kind(&self) -> KeyKind {
        if self.project_id.is_some() {
            KeyKind::Project
        } else {
            KeyKind::Admin
        }
    }
}

/// What a key may do in its project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// As whom, unless it belongs to a service account, which has a role of its own.
    pub role: Role,
    /// What it is limited to.
    pub scopes: Scopes,
    /// The program it belongs to.
    pub service_account: Option<ServiceAccountId>,
}

impl Rights {
    /// Everything.
    pub fn all() -> Self {
        Self {
            role: Role::Owner,
            scopes: Scopes::default(),
            service_account: None,
        }
    }

    /// Those of a service account, within `scopes`. It has a role of its own: the key's is the least there is.
    pub fn of_account(id: ServiceAccountId, scopes: Scopes) -> Self {
        Self {
            role: Role::Viewer,
            scopes,
            service_account: Some(id),
        }
    }
}

/// A key as people see it: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub org_id: OrgId,
    /// The project it opens; none for an admin key.
    pub project_id: Option<ProjectId>,
    /// For people.
    pub name: String,
    /// What it may act on.
    pub kind: KeyKind,
    /// What it may do there.
    pub rights: Rights,
    /// The first characters of the secret.
    pub prefix: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last used, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// From when on it is refused.
    pub expires_at: Option<OffsetDateTime>,
    /// Since when it is refused for good.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Which keys of an organization are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysOf {
    /// Those that open this project.
    Project(ProjectId),
    /// The admin keys.
    Organization,
}

impl KeysOf {
    /// The project, if they are one's.
    pub fn project(self) -> Option<ProjectId> {
        match self {
            Self::Project(id) => Some(id),
            Self::Organization => None,
        }
    }
}

/// Makes a key that may do everything its kind may. The secret is returned here and never again.
pub async fn create(
    tx: &mut impl AdminTx,
    pepper: &Pepper,
    key: &NewApiKey,
    now: OffsetDateTime,
) -> Result<(ApiKey, Secret), StoreError> {
    create_with(tx, pepper, key, &Rights::all(), now).await
}

/// Makes a key with these rights. The secret is returned here and never again.
///
/// # Errors
/// [`StoreError::MissingReference`] if the project or the service account is not of this organization.
pub async fn create_with(
    tx: &mut impl AdminTx,
    pepper: &Pepper,
    key: &NewApiKey,
    rights: &Rights,
    now: OffsetDateTime,
) -> Result<(ApiKey, Secret), StoreError> {
    store_new(tx, pepper, key, rights, None, now).await
}

async fn store_new(
    tx: &mut impl AdminTx,
    pepper: &Pepper,
    key: &NewApiKey,
    rights: &Rights,
    replaces: Option<ApiKeyId>,
    now: OffsetDateTime,
) -> Result<(ApiKey, Secret), StoreError> {
    nul::refuse("name", &key.name)?;
    let secret = Secret::generate(key.kind())?;
    let row = sqlx::query_as!(
        ApiKeyRow,
        "INSERT INTO api_keys (id, org_id, project_id, name, kind, prefix, hash, created_at, expires_at, role,
             scopes, service_account_id, replaces)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         RETURNING id, org_id, project_id, name, kind, prefix, created_at, last_used_at, expires_at,
                   revoked_at, role, scopes, service_account_id",
        ApiKeyId::new().0,
        key.org_id.0,
        key.project_id.map(|id| id.0),
        key.name,
        key.kind().as_str(),
        secret.prefix(),
        &pepper.hash(secret.expose())[..],
        now,
        key.expires_at,
        rights.role.as_str(),
        &rights.scopes.words(),
        rights.service_account.map(|id| id.0),
        replaces.map(|id| id.0),
    )
    .fetch_one(tx.connection())
    .await?;
    Ok((row.read()?, secret))
}

/// Stores a key whose secret was chosen elsewhere. None if that secret is stored already.
pub(crate) async fn insert(
    tx: &mut OperatorTx,
    pepper: &Pepper,
    key: &NewApiKey,
    secret: &Secret,
    now: OffsetDateTime,
) -> Result<Option<ApiKey>, StoreError> {
    nul::refuse("name", &key.name)?;
    let row = sqlx::query_as!(
        ApiKeyRow,
        "INSERT INTO api_keys (id, org_id, project_id, name, kind, prefix, hash, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (hash) DO NOTHING
         RETURNING id, org_id, project_id, name, kind, prefix, created_at, last_used_at, expires_at,
                   revoked_at, role, scopes, service_account_id",
        ApiKeyId::new().0,
        key.org_id.0,
        key.project_id.map(|id| id.0),
        key.name,
        key.kind().as_str(),
        secret.prefix(),
        &pepper.hash(secret.expose())[..],
        now,
        key.expires_at,
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(ApiKeyRow::read).transpose()
}

/// Every key of an organization, oldest first.
pub async fn list(tx: &mut impl AdminTx, org_id: OrgId) -> Result<Vec<ApiKey>, StoreError> {
    let rows = sqlx::query_as!(
        ApiKeyRow,
        "SELECT id, org_id, project_id, name, kind, prefix, created_at, last_used_at, expires_at,
                revoked_at, role, scopes, service_account_id
         FROM api_keys WHERE org_id = $1 ORDER BY created_at, id",
        org_id.0
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter().map(ApiKeyRow::read).collect()
}

/// One page of the keys that were not revoked, newest first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not one of them.
pub async fn page(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    of: KeysOf,
    after: Option<ApiKeyId>,
    limit: u32,
) -> Result<Page<ApiKey>, StoreError> {
    if let Some(after) = after
        && find(tx, org_id, of, after).await?.is_none()
    {
        return Err(StoreError::UnknownCursor);
    }
    let rows = sqlx::query_as!(
        ApiKeyRow,
        "SELECT id, org_id, project_id, name, kind, prefix, created_at, last_used_at, expires_at,
                revoked_at, role, scopes, service_account_id
         FROM api_keys
         WHERE org_id = $1 AND project_id IS NOT DISTINCT FROM $2 AND revoked_at IS NULL
           AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4",
        org_id.0,
        of.project().map(|id| id.0),
        after.map(|id| id.0),
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, ApiKeyRow::read)
}

/// The key, unless it was revoked.
pub async fn find(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    of: KeysOf,
    id: ApiKeyId,
) -> Result<Option<ApiKey>, StoreError> {
    let row = sqlx::query_as!(
        ApiKeyRow,
        "SELECT id, org_id, project_id, name, kind, prefix, created_at, last_used_at, expires_at,
                revoked_at, role, scopes, service_account_id
         FROM api_keys
         WHERE org_id = $1 AND project_id IS NOT DISTINCT FROM $2 AND id = $3 AND revoked_at IS NULL",
        org_id.0,
        of.project().map(|id| id.0),
        id.0,
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(ApiKeyRow::read).transpose()
}

/// Refuses a key from now on. False if there is no such key or it was revoked before.
pub async fn revoke(
    tx: &mut impl AdminTx,
    id: ApiKeyId,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
        id.0,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Refuses every key of a service account from now on.
pub(crate) async fn revoke_of(
    tx: &mut impl AdminTx,
    account: ServiceAccountId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE api_keys SET revoked_at = $2 WHERE service_account_id = $1 AND revoked_at IS NULL",
        account.0,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

struct ApiKeyRow {
    id: Uuid,
    org_id: Uuid,
    project_id: Option<Uuid>,
    name: String,
    kind: String,
    prefix: String,
    created_at: OffsetDateTime,
    last_used_at: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    role: String,
    scopes: Vec<String>,
    service_account_id: Option<Uuid>,
}

impl ApiKeyRow {
    fn read(self) -> Result<ApiKey, StoreError> {
        let rights = Rights {
            role: read_word("role of an API key", &self.role)?,
            scopes: read_scopes(&self.scopes)?,
            service_account: self.service_account_id.map(ServiceAccountId),
        };
        Ok(ApiKey {
            id: ApiKeyId(self.id),
            org_id: OrgId(self.org_id),
            project_id: self.project_id.map(ProjectId),
            name: self.name,
            kind: KeyKind::read(&self.kind)?,
            rights,
            prefix: self.prefix,
            created_at: self.created_at,
            last_used_at: self.last_used_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
        })
    }
}

fn read_scopes(words: &[String]) -> Result<Scopes, StoreError> {
    Scopes::parse(words).map_err(|error| StoreError::corrupt("scopes of an API key", error))
}

/// A role as the database has it.
pub(crate) fn read_word<T>(what: &'static str, word: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    word.parse()
        .map_err(|error: T::Err| StoreError::corrupt(what, error))
}

//! API keys: made, shown once, kept as a keyed hash, looked up on every request.

use std::fmt;

use domain::{ApiKeyId, OrgId, ProjectId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;

use crate::tx::Connection;
use crate::{AuthTx, OperatorTx, StoreError, nul};

/// What a key may act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// One project.
    Project,
    /// The organization itself: its projects and keys.
    Admin,
}

impl KeyKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Admin => "admin",
        }
    }

    fn read(word: &str) -> Result<Self, StoreError> {
        [Self::Project, Self::Admin]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| StoreError::corrupt("kind of an API key", word.to_owned()))
    }

    fn secret_start(self) -> &'static str {
        match self {
            Self::Project => "sk-attune-",
            Self::Admin => "sk-attune-admin-",
        }
    }
}

/// A key's secret, which exists outside its owner's hands only while it is made or checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new secret of 256 random bits.
    ///
    /// # Errors
    /// [`StoreError::Randomness`] if the operating system gives none.
    pub fn generate(kind: KeyKind) -> Result<Self, StoreError> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(StoreError::Randomness)?;
        Ok(Self(format!(
            "{}{}",
            kind.secret_start(),
            hex::encode(bits)
        )))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Enough to tell keys apart and 224 bits too few to guess the rest.
    fn prefix(&self) -> String {
        let start = if self.0.starts_with(KeyKind::Admin.secret_start()) {
            KeyKind::Admin.secret_start()
        } else {
            KeyKind::Project.secret_start()
        };
        self.0.chars().take(start.len() + 8).collect()
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The server's own secret: without it the hashes in a stolen database match nothing.
#[derive(Clone)]
pub struct Pepper([u8; 32]);

/// A pepper that is not 32 bytes of hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("the key pepper must be 64 hexadecimal digits")]
pub struct PepperError(#[source] hex::FromHexError);

impl Pepper {
    /// A pepper of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A pepper from 64 hexadecimal digits.
    ///
    /// # Errors
    /// If the text is something else. It is not repeated.
    pub fn from_hex(text: &str) -> Result<Self, PepperError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(PepperError)?;
        Ok(Self(bytes))
    }

    fn hash(&self, secret: &str) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(secret.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

/// Who a secret speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key.
    pub key_id: ApiKeyId,
    /// Its organization.
    pub org_id: OrgId,
    /// The organization's part in model names.
    pub org_slug: String,
    /// Its project; none for an admin key.
    pub project_id: Option<ProjectId>,
    /// What it may act on.
    pub kind: KeyKind,
}

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

/// Makes a key. The secret is returned here and never again.
pub async fn create(
    tx: &mut OperatorTx,
    pepper: &Pepper,
    key: &NewApiKey,
    now: OffsetDateTime,
) -> Result<(ApiKey, Secret), StoreError> {
    let secret = Secret::generate(key.kind())?;
    let stored = insert(tx, pepper, key, &secret, now)
        .await?
        .ok_or_else(|| StoreError::Exists {
            constraint: "api_keys_hash_key".to_owned(),
        })?;
    Ok((stored, secret))
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
                   revoked_at",
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
pub async fn list(tx: &mut OperatorTx, org_id: OrgId) -> Result<Vec<ApiKey>, StoreError> {
    let rows = sqlx::query_as!(
        ApiKeyRow,
        "SELECT id, org_id, project_id, name, kind, prefix, created_at, last_used_at, expires_at,
                revoked_at
         FROM api_keys WHERE org_id = $1 ORDER BY created_at, id",
        org_id.0
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter().map(ApiKeyRow::read).collect()
}

/// Refuses a key from now on. False if there is no such key or it was revoked before.
pub async fn revoke(
    tx: &mut OperatorTx,
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

/// Who `secret` speaks for: nobody if it is unknown, revoked or expired. Commit the transaction, which noted the use.
pub async fn authenticate(
    tx: &mut AuthTx,
    pepper: &Pepper,
    secret: &str,
    now: OffsetDateTime,
) -> Result<Option<Principal>, StoreError> {
    // The index is over a keyed hash: how long the lookup takes says nothing about any stored secret.
    let row = sqlx::query!(
        "SELECT k.id, k.org_id, k.project_id, k.kind, o.slug,
                (k.last_used_at IS NULL OR k.last_used_at < $2::timestamptz - interval '1 minute') AS \"stale!\"
         FROM api_keys k JOIN organizations o ON o.id = k.org_id
         WHERE k.hash = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2)",
        &pepper.hash(secret)[..],
        now,
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.stale {
        sqlx::query!(
            "UPDATE api_keys SET last_used_at = $2 WHERE id = $1",
            row.id,
            now
        )
        .execute(tx.connection())
        .await?;
    }
    Ok(Some(Principal {
        key_id: ApiKeyId(row.id),
        org_id: OrgId(row.org_id),
        org_slug: row.slug,
        project_id: row.project_id.map(ProjectId),
        kind: KeyKind::read(&row.kind)?,
    }))
}

struct ApiKeyRow {
    id: uuid::Uuid,
    org_id: uuid::Uuid,
    project_id: Option<uuid::Uuid>,
    name: String,
    kind: String,
    prefix: String,
    created_at: OffsetDateTime,
    last_used_at: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
}

impl ApiKeyRow {
    fn read(self) -> Result<ApiKey, StoreError> {
        Ok(ApiKey {
            id: ApiKeyId(self.id),
            org_id: OrgId(self.org_id),
            project_id: self.project_id.map(ProjectId),
            name: self.name,
            kind: KeyKind::read(&self.kind)?,
            prefix: self.prefix,
            created_at: self.created_at,
            last_used_at: self.last_used_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_256_bits_and_hides_in_debug_output() {
        let secret = Secret::generate(KeyKind::Project).unwrap();
        assert_eq!(secret.expose().len(), "sk-attune-".len() + 64);
        assert_ne!(secret, Secret::generate(KeyKind::Project).unwrap());
        assert!(!format!("{secret:?}").contains(&secret.expose()[10..]));
    }

    #[test]
    fn a_prefix_shows_32_bits() {
        for kind in [KeyKind::Project, KeyKind::Admin] {
            let secret = Secret::generate(kind).unwrap();
            assert_eq!(secret.prefix().len(), kind.secret_start().len() + 8);
        }
    }

    #[test]
    fn the_same_secret_hashes_differently_under_another_pepper() {
        let hash = |byte| Pepper::new([byte; 32]).hash("sk-attune-1");
        assert_ne!(hash(1), hash(2));
    }

    #[test]
    fn a_short_pepper_is_refused_and_not_repeated() {
        let error = Pepper::from_hex("abcd").unwrap_err();
        assert!(!error.to_string().contains("abcd"), "{error}");
    }
}

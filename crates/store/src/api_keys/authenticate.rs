//! From a secret to whom it speaks for, asked of the database on every request: a key that is revoked now is refused
//! with the next one.

use std::collections::HashSet;

use domain::{ApiKeyId, OrgId, ProjectId, Role, Scopes, ServiceAccountId};
use time::OffsetDateTime;

use super::{KeyKind, Pepper, read_scopes, read_word};
use crate::tx::Connection;
use crate::{AuthTx, StoreError};

/// Who a secret speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key.
    pub key_id: ApiKeyId,
    /// What people call the key.
    pub key_name: String,
    /// Its organization.
    pub org_id: OrgId,
    /// The organization's part in model names.
    pub org_slug: String,
    /// Its project; none for an admin key.
    pub project_id: Option<ProjectId>,
    /// What it may act on.
    pub kind: KeyKind,
    /// Its role there: its own, or that of its service account.
    pub role: Role,
    /// What it is limited to.
    pub scopes: Scopes,
    /// The program it belongs to.
    pub service_account: Option<ServiceAccountId>,
}

/// Who `secret` speaks for: nobody if it is unknown, revoked or expired, or if its project, organization or service
/// account is gone. Commit the transaction, which noted the use.
pub async fn authenticate(
    tx: &mut AuthTx,
    pepper: &Pepper,
    secret: &str,
    now: OffsetDateTime,
) -> Result<Option<Principal>, StoreError> {
    // The index is over a keyed hash: how long the lookup takes says nothing about any stored secret.
    let row = sqlx::query!(
        "SELECT k.id, k.name, k.org_id, k.project_id, k.kind, k.scopes, k.service_account_id, o.slug,
                COALESCE(s.role, k.role) AS \"role!\",
                (k.last_used_at IS NULL OR k.last_used_at < $2::timestamptz - interval '1 minute') AS \"stale!\"
         FROM api_keys k JOIN organizations o ON o.id = k.org_id
         LEFT JOIN projects p ON p.id = k.project_id
         LEFT JOIN service_accounts s ON s.id = k.service_account_id
         WHERE k.hash = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2)
           AND o.archived_at IS NULL AND p.archived_at IS NULL AND s.deleted_at IS NULL",
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
        key_name: row.name,
        org_id: OrgId(row.org_id),
        org_slug: row.slug,
        project_id: row.project_id.map(ProjectId),
        kind: KeyKind::read(&row.kind)?,
        role: read_word("role", &row.role)?,
        scopes: read_scopes(&row.scopes)?,
        service_account: row.service_account_id.map(ServiceAccountId),
    }))
}

/// Those of `ids` that [`authenticate`] would let in, by the same conditions.
pub async fn in_use(
    tx: &mut AuthTx,
    ids: &[ApiKeyId],
    now: OffsetDateTime,
) -> Result<HashSet<ApiKeyId>, StoreError> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query_scalar!(
        "SELECT k.id
         FROM api_keys k JOIN organizations o ON o.id = k.org_id
         LEFT JOIN projects p ON p.id = k.project_id
         LEFT JOIN service_accounts s ON s.id = k.service_account_id
         WHERE k.id = ANY($1) AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2)
           AND o.archived_at IS NULL AND p.archived_at IS NULL AND s.deleted_at IS NULL",
        &ids,
        now,
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(ApiKeyId).collect())
}

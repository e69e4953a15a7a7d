//! A key in the place of another one.

use domain::ApiKeyId;
use time::{Duration, OffsetDateTime};

use super::{ApiKey, NewApiKey, Pepper, Secret, store_new};
use crate::{AdminTx, StoreError};

/// Why a key is not replaced. The message says which way is open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotationRefused {
    /// Another one took its place before: an answer was lost, or a client asked twice.
    #[error(
        "the key `{id}` was replaced by `{by}` already: rotate that one; if its secret was lost, revoke it and make a \
         new key"
    )]
    Replaced {
        /// The key.
        id: ApiKeyId,
        /// The one that took its place.
        by: ApiKeyId,
    },
    /// It is refused for good.
    #[error("the key `{0}` is revoked: make a new key")]
    Revoked(ApiKeyId),
    /// Its time is over.
    #[error("the key `{0}` has expired: make a new key")]
    Expired(ApiKeyId),
}

/// A new key with the rights of `old`, which is refused once `grace` is over: until then both are good, so that nothing
/// has to change its key at the very moment. A key that expires by itself is replaced by one that does so, too.
///
/// # Errors
/// [`StoreError::Rotation`] if the key is not in use, or was replaced before: it expires with its grace then, and a
/// second replacement would inherit that end.
pub async fn rotate(
    tx: &mut impl AdminTx,
    pepper: &Pepper,
    old: &ApiKey,
    grace: Duration,
    now: OffsetDateTime,
) -> Result<(ApiKey, Secret), StoreError> {
    must_be_replaceable(tx, old, now).await?;
    let new = NewApiKey {
        org_id: old.org_id,
        project_id: old.project_id,
        name: old.name.clone(),
        expires_at: old.expires_at,
    };
    let made = store_new(tx, pepper, &new, &old.rights, Some(old.id), now).await?;
    sqlx::query!(
        "UPDATE api_keys SET expires_at = LEAST(expires_at, $2) WHERE id = $1",
        old.id.0,
        now + grace,
    )
    .execute(tx.connection())
    .await?;
    Ok(made)
}

/// Locks the key first: of two who replace it at once, the second sees what the first has done.
async fn must_be_replaceable(
    tx: &mut impl AdminTx,
    old: &ApiKey,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let key = sqlx::query!(
        "SELECT revoked_at, expires_at FROM api_keys WHERE id = $1 FOR UPDATE",
        old.id.0
    )
    .fetch_one(tx.connection())
    .await?;
    let by = sqlx::query_scalar!(
        "SELECT id FROM api_keys WHERE org_id = $1 AND replaces = $2
         ORDER BY revoked_at IS NULL DESC, id DESC LIMIT 1",
        old.org_id.0,
        old.id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    let refused = if let Some(by) = by {
        let by = ApiKeyId(by);
        RotationRefused::Replaced { id: old.id, by }
    } else if key.revoked_at.is_some() {
        RotationRefused::Revoked(old.id)
    } else if key.expires_at.is_some_and(|end| end <= now) {
        RotationRefused::Expired(old.id)
    } else {
        return Ok(());
    };
    Err(refused.into())
}

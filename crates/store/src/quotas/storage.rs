//! Whether more bytes may be stored.

use super::{QuotaExceeded, own};
use crate::number::from_bigint;
use crate::tx::Connection;
use crate::{StoreError, TenantTx};

/// Whether the files that this transaction has stored may stay.
///
/// # Errors
/// [`StoreError::Quota`] if the project stores more than it may with them. `added` is their size.
pub async fn admit_bytes(tx: &mut TenantTx, added: u64) -> Result<(), StoreError> {
    let Some(max) = own(tx).await?.max_storage_bytes else {
        return Ok(());
    };
    // Exact: our own write locked the row.
    let used = storage_bytes(tx).await?;
    if used <= max {
        return Ok(());
    }
    let used = used.saturating_sub(added);
    Err(QuotaExceeded::StorageBytes { max, used }.into())
}

/// How many more bytes fit, before anything was stored. None: any number.
///
/// # Errors
/// [`StoreError::Quota`] if not one does, or not as many as `wanted`.
pub async fn room(tx: &mut TenantTx, wanted: u64) -> Result<Option<Room>, StoreError> {
    let Some(room) = left(tx).await? else {
        return Ok(None);
    };
    if room.bytes() < wanted.max(1) {
        return Err(room.exceeded().into());
    }
    Ok(Some(room))
}

/// The same, also where there is no room at all.
pub async fn left(tx: &mut TenantTx) -> Result<Option<Room>, StoreError> {
    let Some(max) = own(tx).await?.max_storage_bytes else {
        return Ok(None);
    };
    let used = storage_bytes(tx).await?;
    Ok(Some(Room { max, used }))
}

/// What is left of what a project may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    max: u64,
    used: u64,
}

impl Room {
    /// How many bytes fit.
    pub fn bytes(&self) -> u64 {
        self.max.saturating_sub(self.used)
    }

    /// What is left when so many bytes are put into it.
    #[must_use]
    pub fn with(self, n_bytes: u64) -> Self {
        let used = self.used.saturating_add(n_bytes);
        Self { used, ..self }
    }

    /// What to say to whoever needs more.
    pub fn exceeded(&self) -> QuotaExceeded {
        QuotaExceeded::StorageBytes {
            max: self.max,
            used: self.used,
        }
    }
}

/// Bytes of all files of the transaction's project, of the parts of its pending uploads, and of its models and their
/// checkpoints.
pub async fn storage_bytes(tx: &mut TenantTx) -> Result<u64, StoreError> {
    let bytes = sqlx::query_scalar!(
        "SELECT storage_bytes FROM project_usage WHERE project_id = $1",
        tx.project_id().0
    )
    .fetch_optional(tx.connection())
    .await?;
    from_bigint("number of bytes", bytes.unwrap_or(0))
}

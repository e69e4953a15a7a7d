//! A project's account. The operator sets it; the project's jobs report with it, and nobody is shown its key.

use domain::ProjectId;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::sealed::{Keyring, Place, Plaintext};
use crate::tx::Connection;
use crate::{OperatorTx, StoreError, TenantTx, nul};

/// Everything of an account but its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Of the server's API, without a slash at the end.
    pub base_url: String,
    /// The user or team of runs that name none. `None`: the key's own.
    pub entity: Option<String>,
}

/// Sets a project's account in place of the one it had. Reports that failed are tried again at once.
///
/// # Errors
/// [`StoreError::Sealed`] if the key cannot be sealed; [`StoreError::NulCharacter`] names what cannot be stored.
pub async fn set(
    tx: &mut OperatorTx,
    keyring: &Keyring,
    project_id: ProjectId,
    account: &Account,
    api_key: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    nul::refuse("base_url", &account.base_url)?;
    nul::refuse_optional("entity", account.entity.as_deref())?;
    remove(tx, project_id).await?;
    let place = place(project_id, Uuid::now_v7());
    let sealed = place.seal(keyring, api_key.as_bytes())?;
    sqlx::query!(
        "INSERT INTO wandb_accounts (id, project_id, api_key, base_url, entity, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        place.row_id,
        project_id.0,
        sealed,
        account.base_url,
        account.entity,
        now,
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "UPDATE wandb_runs SET wakes_at = now()
         WHERE project_id = $1 AND finished_at IS NULL AND n_failures > 0 AND lease_token IS NULL",
        project_id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// A project's account, if it has one.
pub async fn find(
    tx: &mut OperatorTx,
    project_id: ProjectId,
) -> Result<Option<Account>, StoreError> {
    let row = sqlx::query_as!(
        Account,
        "SELECT base_url, entity FROM wandb_accounts WHERE project_id = $1",
        project_id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row)
}

/// Takes a project's account away. Says whether it had one.
pub async fn remove(tx: &mut OperatorTx, project_id: ProjectId) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM wandb_accounts WHERE project_id = $1",
        project_id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the project may report.
pub async fn exists(tx: &mut TenantTx) -> Result<bool, StoreError> {
    let exists = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM wandb_accounts WHERE project_id = $1) AS "exists!""#,
        tx.project_id().0
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(exists)
}

/// The project's account with its key, to report with.
///
/// # Errors
/// [`StoreError::Sealed`] if the key cannot be opened.
pub async fn open(
    tx: &mut TenantTx,
    keyring: &Keyring,
) -> Result<Option<(Account, Plaintext)>, StoreError> {
    let project_id = tx.project_id();
    let row = sqlx::query!(
        "SELECT id, api_key, base_url, entity FROM wandb_accounts WHERE project_id = $1",
        project_id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let key = place(project_id, row.id).open(keyring, &row.api_key)?;
    let account = Account {
        base_url: row.base_url,
        entity: row.entity,
    };
    Ok(Some((account, key)))
}

fn place(project_id: ProjectId, id: Uuid) -> Place {
    Place {
        table: "wandb_accounts",
        column: "api_key",
        project_id,
        row_id: id,
    }
}

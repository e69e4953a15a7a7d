//! From an old key to the first one, row by row, while everything runs.

use domain::ProjectId;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Keyring, Place, SealedError};
use crate::tx::Connection;
use crate::{Store, StoreError};

/// Rows of one transaction: a rotation holds no lock for long, and one that is broken off has done what it has done.
const BATCH: i64 = 500;

/// A column of sealed values, in a table with the columns `id` and `project_id`. `app_operator` must be able to select
/// these three and to update the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedColumn {
    /// The table.
    pub table: &'static str,
    /// The column, of type `bytea`. NULL is no secret.
    pub column: &'static str,
}

/// Every column that a rotation goes through. A table with secrets adds its own here.
pub const SEALED_COLUMNS: &[SealedColumn] = &[
    SealedColumn {
        table: "webhook_endpoints",
        column: "secret",
    },
    SealedColumn {
        table: "webhook_endpoints",
        column: "old_secret",
    },
    SealedColumn {
        table: "wandb_accounts",
        column: "api_key",
    },
    SealedColumn {
        table: "project_buckets",
        column: "secret_access_key",
    },
];

/// Seals everything again that an older key sealed, and says how many values that were. Afterwards the older keys may go.
///
/// # Errors
/// Names the row that does not open. Those before it are done.
pub async fn rotate(store: &Store, keyring: &Keyring) -> Result<u64, StoreError> {
    let mut resealed = 0;
    for column in SEALED_COLUMNS {
        resealed += rotate_column(store, keyring, *column).await?;
    }
    Ok(resealed)
}

/// [`rotate`] for one column.
///
/// # Errors
/// As [`rotate`].
pub async fn rotate_column(
    store: &Store,
    keyring: &Keyring,
    column: SealedColumn,
) -> Result<u64, StoreError> {
    let (mut resealed, mut after) = (0, Uuid::nil());
    loop {
        let mut tx = store.operator_tx().await?;
        let rows = batch(tx.connection(), column, after).await?;
        let Some(last) = rows.last() else {
            return Ok(resealed);
        };
        after = last.0;
        for (id, project_id, sealed) in &rows {
            if keyring.is_current(sealed) {
                continue;
            }
            let place = Place {
                table: column.table,
                column: column.column,
                project_id: ProjectId(*project_id),
                row_id: *id,
            };
            let fresh = reseal(keyring, &place, sealed);
            let fresh = fresh.map_err(|source| place.failed(source))?;
            resealed += replace(tx.connection(), column, *id, sealed, &fresh).await?;
        }
        tx.commit().await?;
    }
}

type Row = (Uuid, Uuid, Vec<u8>);

async fn batch(
    connection: &mut sqlx::PgConnection,
    SealedColumn { table, column }: SealedColumn,
    after: Uuid,
) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT id, project_id, {column} FROM {table}
         WHERE {column} IS NOT NULL AND id > $1 ORDER BY id LIMIT $2"
    );
    // Both names are constants of this program.
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(after)
        .bind(BATCH)
        .fetch_all(connection)
        .await?)
}

/// A value that somebody replaced since it was read is sealed with the first key already, and stays.
async fn replace(
    connection: &mut sqlx::PgConnection,
    SealedColumn { table, column }: SealedColumn,
    id: Uuid,
    old: &[u8],
    new: &[u8],
) -> Result<u64, StoreError> {
    let sql = format!("UPDATE {table} SET {column} = $3 WHERE id = $1 AND {column} = $2");
    let done = sqlx::query(AssertSqlSafe(sql))
        .bind(id)
        .bind(old)
        .bind(new)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

fn reseal(keyring: &Keyring, place: &Place, sealed: &[u8]) -> Result<Vec<u8>, SealedError> {
    keyring.seal(place, keyring.open(place, sealed)?.expose())
}

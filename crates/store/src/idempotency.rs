//! What was answered to requests that made something, so that the same request again makes nothing and is told the same.
//!
//! The answer is written in the transaction that makes the object: after a crash both are there or neither is. While
//! that transaction is open, an advisory lock of Postgres stands for the request; it goes with the transaction, however
//! that ends, so nobody has to clean up after a process that died.

use sha2::{Digest as _, Sha256};
use sqlx::types::Uuid;
use time::{Duration, OffsetDateTime};

use crate::tx::Connection;
use crate::{StoreError, TenantTx, WorkerTx};

/// How long an answer is kept under a key that the client chose.
pub const KEY_LIFETIME: Duration = Duration::hours(24);
/// How long one is kept for clients that choose no key but say when they retry: their last retry follows within minutes.
pub const RETRY_LIFETIME: Duration = Duration::minutes(10);

/// What is waited for a lock, in turns. A transaction that was refused is undone a moment after its request was answered, and
/// who then sends the corrected request is not told that the other one is still under way.
const LOCK_PAUSES: [std::time::Duration; 3] = [
    std::time::Duration::from_millis(5),
    std::time::Duration::from_millis(20),
    std::time::Duration::from_millis(75),
];

/// A request that is to take effect once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method and pattern of the route.
    pub route: String,
    /// How the request is recognised.
    pub mark: Mark,
    /// SHA-256 of everything that was asked.
    pub fingerprint: [u8; 32],
}

/// What tells a repetition from a request that merely says the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The client's own key.
    Key(String),
    /// None, and it is the first try, as far as the client says.
    First,
    /// None, but the client says that it tried before.
    Retry,
}

/// An answer, as it went out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it is to be carried out, and its answer [kept](keep) in the same transaction.
    New,
    /// It was carried out, with this answer.
    Answered(Answer),
    /// Its key was used for something else.
    OtherRequest,
    /// Another transaction is carrying it out at this moment.
    InFlight,
}

/// Looks the request up. Until `tx` ends, a repetition of it is [`Standing::InFlight`].
pub async fn open(
    tx: &mut TenantTx,
    request: &Request,
    now: OffsetDateTime,
) -> Result<Standing, StoreError> {
    if !lock(tx, request).await? {
        return Ok(Standing::InFlight);
    }
    // A statement after the lock: it sees what the holder before committed.
    match &request.mark {
        Mark::Key(key) => by_key(tx, request, key, now).await,
        Mark::Retry => by_fingerprint(tx, request, now).await,
        Mark::First => Ok(Standing::New),
    }
}

/// Two first tries that say the same may run side by side; a repetition runs alone.
async fn lock(tx: &mut TenantTx, request: &Request) -> Result<bool, StoreError> {
    let number = lock_number(tx, request);
    if request.mark == Mark::First {
        sqlx::query!("SELECT pg_advisory_xact_lock_shared($1)", number)
            .execute(tx.connection())
            .await?;
        return Ok(true);
    }
    for pause in LOCK_PAUSES {
        if try_lock(tx, number).await? {
            return Ok(true);
        }
        tokio::time::sleep(pause).await;
    }
    try_lock(tx, number).await
}

async fn try_lock(tx: &mut TenantTx, number: i64) -> Result<bool, StoreError> {
    let taken = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock($1) AS "taken!""#,
        number
    );
    Ok(taken.fetch_one(tx.connection()).await?)
}

/// Locks have numbers, not names. That two requests have the same is possible and would cost one of them a retry.
fn lock_number(tx: &TenantTx, request: &Request) -> i64 {
    let mut hash = Sha256::new();
    hash.update(b"attune idempotency\0");
    hash.update(tx.project_id().0.as_bytes());
    hash.update(request.route.as_bytes());
    match &request.mark {
        Mark::Key(key) => {
            hash.update(b"\0key\0");
            hash.update(key.as_bytes());
        }
        Mark::First | Mark::Retry => {
            hash.update(b"\0fingerprint\0");
            hash.update(request.fingerprint);
        }
    }
    let digest = hash.finalize();
    i64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

async fn by_key(
    tx: &mut TenantTx,
    request: &Request,
    key: &str,
    now: OffsetDateTime,
) -> Result<Standing, StoreError> {
    let row = sqlx::query!(
        "SELECT fingerprint, status, body FROM idempotency_keys
         WHERE project_id = $1 AND route = $2 AND key = $3 AND expires_at > $4",
        tx.project_id().0,
        request.route,
        key,
        now,
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(match row {
        None => Standing::New,
        Some(row) if row.fingerprint != request.fingerprint => Standing::OtherRequest,
        Some(row) => answered(row.status, row.body)?,
    })
}

async fn by_fingerprint(
    tx: &mut TenantTx,
    request: &Request,
    now: OffsetDateTime,
) -> Result<Standing, StoreError> {
    let row = sqlx::query!(
        "SELECT status, body FROM idempotency_keys
         WHERE project_id = $1 AND route = $2 AND fingerprint = $3 AND key IS NULL AND expires_at > $4
         ORDER BY created_at DESC LIMIT 1",
        tx.project_id().0,
        request.route,
        &request.fingerprint,
        now,
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map_or(Ok(Standing::New), |row| answered(row.status, row.body))
}

fn answered(status: i16, body: Vec<u8>) -> Result<Standing, StoreError> {
    let status = u16::try_from(status)
        .map_err(|_| StoreError::corrupt("status of a kept answer", status.to_string()))?;
    Ok(Standing::Answered(Answer { status, body }))
}

/// Keeps what is about to be answered. Only after [`open`] said [`Standing::New`] in the same transaction.
pub async fn keep(
    tx: &mut TenantTx,
    request: &Request,
    answer: &Answer,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let (key, lifetime) = match &request.mark {
        Mark::Key(key) => (Some(key.as_str()), KEY_LIFETIME),
        Mark::First | Mark::Retry => (None, RETRY_LIFETIME),
    };
    let status = i16::try_from(answer.status)
        .map_err(|_| StoreError::corrupt("status of an answer", answer.status.to_string()))?;
    // A key that is there has expired, since `open` did not find it.
    sqlx::query!(
        "INSERT INTO idempotency_keys (id, project_id, route, key, fingerprint, status, body, expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (project_id, route, key) WHERE key IS NOT NULL DO UPDATE
         SET id = EXCLUDED.id, fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status, body = EXCLUDED.body,
             expires_at = EXCLUDED.expires_at, created_at = EXCLUDED.created_at",
        Uuid::now_v7(),
        tx.project_id().0,
        request.route,
        key,
        &request.fingerprint,
        status,
        answer.body,
        now + lifetime,
        now,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Deletes up to `limit` answers whose time is over. Says how many.
pub async fn delete_expired(
    tx: &mut WorkerTx,
    now: OffsetDateTime,
    limit: u32,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE id IN (
             SELECT k.id FROM idempotency_keys k WHERE k.expires_at <= $1 ORDER BY k.expires_at LIMIT $2
         )",
        now,
        i64::from(limit),
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected())
}

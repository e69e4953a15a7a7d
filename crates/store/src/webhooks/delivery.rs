//! The deliverer's side of the outbox: take, tell, say what came of it.
//!
//! Whoever takes a delivery and dies leaves it to the next, a little later: an event is told at least once.

use std::time::Duration;

use domain::webhook::pause_after;
use domain::{ProjectId, WebhookDeliveryId, WebhookEndpointId, WebhookEventId};
use time::OffsetDateTime;

use super::place;
use crate::sealed::{Keyring, Plaintext};
use crate::tx::Connection;
use crate::{StoreError, WorkerTx};

/// Deliveries of one endpoint that are under way at once: a slow receiver holds up its own events only.
const PER_ENDPOINT: i64 = 4;
/// An endpoint that failed for so long, without a success in between, is disabled when a delivery is given up.
const DISABLED_AFTER: Duration = Duration::from_hours(72);

/// Something to tell, and where.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Stays the same over every attempt.
    pub id: WebhookDeliveryId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Which endpoint.
    pub endpoint_id: WebhookEndpointId,
    /// Where to.
    pub url: String,
    /// The event.
    pub event_id: WebhookEventId,
    /// Its type.
    pub event_type: String,
    /// What it happened to.
    pub object_id: String,
    /// When it happened.
    pub created_at: OffsetDateTime,
    /// Which attempt this is, from 1.
    pub attempt: i32,
    /// What to sign with.
    pub secrets: SealedSecrets,
}

/// An endpoint's secrets as they are stored.
#[derive(Debug, Clone)]
pub struct SealedSecrets {
    pub(super) current: Vec<u8>,
    pub(super) old: Option<(Vec<u8>, OffsetDateTime)>,
}

impl SealedSecrets {
    pub(super) fn open(
        &self,
        keyring: &Keyring,
        project_id: ProjectId,
        id: WebhookEndpointId,
        now: OffsetDateTime,
    ) -> Result<Vec<Plaintext>, StoreError> {
        let mut secrets = vec![place(project_id, id, "secret").open(keyring, &self.current)?];
        if let Some((old, _)) = self.old.as_ref().filter(|(_, end)| now < *end) {
            secrets.push(place(project_id, id, "old_secret").open(keyring, old)?);
        }
        Ok(secrets)
    }
}

impl Delivery {
    /// The secrets that sign at `now`.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] if one cannot be opened.
    pub fn secrets(
        &self,
        keyring: &Keyring,
        now: OffsetDateTime,
    ) -> Result<Vec<Plaintext>, StoreError> {
        self.secrets
            .open(keyring, self.project_id, self.endpoint_id, now)
    }
}

/// Takes on up to `limit` deliveries that are due. Commit, tell, then say what came of each; what nobody said anything
/// about within `lease_for` comes up again.
pub async fn take(
    tx: &mut WorkerTx,
    limit: u32,
    lease_for: Duration,
) -> Result<Vec<Delivery>, StoreError> {
    // A few of each endpoint, so that one with a thousand of them does not hold up the others.
    let rows = sqlx::query!(
        "WITH due AS (
             SELECT w.project_id, w.id
             FROM webhook_endpoints e CROSS JOIN LATERAL (
                 SELECT d.project_id, d.id, d.next_attempt_at
                 FROM webhook_deliveries d
                 WHERE d.project_id = e.project_id AND d.endpoint_id = e.id AND d.next_attempt_at <= now()
                 ORDER BY d.next_attempt_at LIMIT $3
                 FOR NO KEY UPDATE SKIP LOCKED
             ) w
             WHERE e.disabled_at IS NULL
             ORDER BY w.next_attempt_at LIMIT $1
         )
         UPDATE webhook_deliveries d
         SET attempt = d.attempt + 1, next_attempt_at = now() + make_interval(secs => $2)
         FROM due, webhook_endpoints e
         WHERE d.project_id = due.project_id AND d.id = due.id
           AND e.project_id = d.project_id AND e.id = d.endpoint_id
         RETURNING d.id, d.project_id, d.endpoint_id, d.event_id, d.event_type, d.object_id, d.created_at, d.attempt,
             e.url, e.secret, e.old_secret, e.old_secret_expires_at",
        i64::from(limit),
        lease_for.as_secs_f64(),
        PER_ENDPOINT,
    )
    .fetch_all(tx.connection())
    .await?;
    let deliveries = rows.into_iter().map(|row| Delivery {
        id: WebhookDeliveryId(row.id),
        project_id: ProjectId(row.project_id),
        endpoint_id: WebhookEndpointId(row.endpoint_id),
        url: row.url,
        event_id: WebhookEventId(row.event_id),
        event_type: row.event_type,
        object_id: row.object_id,
        created_at: row.created_at,
        attempt: row.attempt,
        secrets: SealedSecrets {
            current: row.secret,
            old: row.old_secret.zip(row.old_secret_expires_at),
        },
    });
    Ok(deliveries.collect())
}

/// The receiver took it.
pub async fn told(tx: &mut WorkerTx, delivery: &Delivery) -> Result<(), StoreError> {
    // Whatever the attempt: told is told.
    forget(tx, delivery).await?;
    sqlx::query!(
        "UPDATE webhook_endpoints SET failing_since = NULL, last_failure = NULL
         WHERE project_id = $1 AND id = $2 AND failing_since IS NOT NULL",
        delivery.project_id.0,
        delivery.endpoint_id.0,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt.
    Retry,
    /// None: it was the last one.
    GivenUp,
    /// None, and the endpoint is told nothing more until its tenant updates it.
    Disabled,
    /// Somebody else has taken the delivery on since.
    NotOurs,
}

/// The receiver did not take it; `reason` is for the tenant. `is_gone` says that it wants nothing more, ever.
pub async fn failed(
    tx: &mut WorkerTx,
    delivery: &Delivery,
    reason: &str,
    is_gone: bool,
    now: OffsetDateTime,
) -> Result<Next, StoreError> {
    let pause = pause_after(delivery.attempt).filter(|_| !is_gone);
    let done = sqlx::query!(
        "UPDATE webhook_deliveries SET next_attempt_at = now() + make_interval(secs => $4)
         WHERE project_id = $1 AND id = $2 AND attempt = $3",
        delivery.project_id.0,
        delivery.id.0,
        delivery.attempt,
        pause.unwrap_or_default().as_secs_f64(),
    )
    .execute(tx.connection())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(Next::NotOurs);
    }
    let failing_since = sqlx::query_scalar!(
        r#"UPDATE webhook_endpoints SET failing_since = COALESCE(failing_since, $3), last_failure = $4
           WHERE project_id = $1 AND id = $2
           RETURNING failing_since AS "failing_since!""#,
        delivery.project_id.0,
        delivery.endpoint_id.0,
        now,
        reason,
    )
    .fetch_one(tx.connection())
    .await?;
    if pause.is_some() {
        return Ok(Next::Retry);
    }
    if is_gone || failing_since + DISABLED_AFTER <= now {
        disable(tx, delivery, now).await?;
        return Ok(Next::Disabled);
    }
    forget(tx, delivery).await?;
    Ok(Next::GivenUp)
}

async fn forget(tx: &mut WorkerTx, delivery: &Delivery) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM webhook_deliveries WHERE project_id = $1 AND id = $2",
        delivery.project_id.0,
        delivery.id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

async fn disable(
    tx: &mut WorkerTx,
    delivery: &Delivery,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE webhook_endpoints SET disabled_at = $3 WHERE project_id = $1 AND id = $2",
        delivery.project_id.0,
        delivery.endpoint_id.0,
        now,
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "DELETE FROM webhook_deliveries WHERE project_id = $1 AND endpoint_id = $2",
        delivery.project_id.0,
        delivery.endpoint_id.0,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// How many deliveries wait, over all tenants.
pub async fn waiting(tx: &mut WorkerTx) -> Result<i64, StoreError> {
    Ok(
        sqlx::query_scalar!(r#"SELECT count(*) AS "n!" FROM webhook_deliveries"#)
            .fetch_one(tx.connection())
            .await?,
    )
}

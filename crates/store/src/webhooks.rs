//! Addresses that a project wants to be told at, and the outbox of what they are to be told.
//!
//! An event's rows are written in the transaction that makes the change ([`enqueue`]), so an event is told if and only if
//! its change happened. Delivering is [`delivery`]'s side.

pub mod delivery;

use domain::{ProjectId, WebhookEndpointId, WebhookEventId, WebhookEventType};
use sqlx::PgConnection;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::page::one_more;
use crate::sealed::{Keyring, Place, Plaintext};
use crate::tx::Connection;
use crate::{Page, StoreError, TenantTx, nul};

/// Endpoints of a project.
pub const MAX_ENDPOINTS: u32 = 50;

const TABLE: &str = "webhook_endpoints";

/// An address that is told of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: WebhookEndpointId,
    /// What people call it.
    pub name: String,
    /// Where to.
    pub url: String,
    /// Of what.
    pub event_types: Vec<WebhookEventType>,
    /// The end of the secret.
    pub secret_hint: String,
    /// The first failure since the last success.
    pub failing_since: Option<OffsetDateTime>,
    /// What went wrong last, since the last success.
    pub last_failure: Option<String>,
    /// Since when nothing is told any more.
    pub disabled_at: Option<OffsetDateTime>,
    /// The last change of settings or secret.
    pub configured_at: OffsetDateTime,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// What a tenant decides about an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What people call it.
    pub name: String,
    /// Where to.
    pub url: String,
    /// Of what.
    pub event_types: Vec<WebhookEventType>,
}

struct Row {
    id: Uuid,
    name: String,
    url: String,
    event_types: Vec<String>,
    secret_hint: String,
    failing_since: Option<OffsetDateTime>,
    last_failure: Option<String>,
    disabled_at: Option<OffsetDateTime>,
    configured_at: OffsetDateTime,
    created_at: OffsetDateTime,
}

impl Row {
    fn read(self) -> Result<Endpoint, StoreError> {
        let event_types = self.event_types.iter().map(|word| word.parse());
        let event_types: Result<Vec<WebhookEventType>, String> = event_types.collect();
        Ok(Endpoint {
            id: WebhookEndpointId(self.id),
            name: self.name,
            url: self.url,
            event_types: event_types
                .map_err(|word| StoreError::corrupt("event type of a webhook endpoint", word))?,
            secret_hint: self.secret_hint,
            failing_since: self.failing_since,
            last_failure: self.last_failure,
            disabled_at: self.disabled_at,
            configured_at: self.configured_at,
            created_at: self.created_at,
        })
    }
}

/// Stores a new endpoint with its secret. None if the project has [`MAX_ENDPOINTS`] already.
///
/// # Errors
/// [`StoreError::NulCharacter`] names the field that cannot be stored.
pub async fn create(
    tx: &mut TenantTx,
    keyring: &Keyring,
    settings: &Settings,
    secret: &str,
    now: OffsetDateTime,
) -> Result<Option<Endpoint>, StoreError> {
    refuse_nul(settings)?;
    // Two at once would both count before either is there.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('webhook_endpoints' || $1::text, 0))",
        tx.project_id().0.to_string()
    )
    .execute(tx.connection())
    .await?;
    let n = sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM webhook_endpoints WHERE project_id = $1"#,
        tx.project_id().0
    )
    .fetch_one(tx.connection())
    .await?;
    if n >= i64::from(MAX_ENDPOINTS) {
        return Ok(None);
    }
    let id = WebhookEndpointId::new();
    let sealed = place(tx.project_id(), id, "secret").seal(keyring, secret.as_bytes())?;
    sqlx::query!(
        "INSERT INTO webhook_endpoints (id, project_id, name, url, event_types, secret, secret_hint, configured_at,
             created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
        id.0,
        tx.project_id().0,
        settings.name,
        settings.url,
        &words(&settings.event_types),
        sealed,
        hint(secret),
        now,
    )
    .execute(tx.connection())
    .await?;
    find(tx, id).await
}

/// The endpoint with this id.
pub async fn find(
    tx: &mut TenantTx,
    id: WebhookEndpointId,
) -> Result<Option<Endpoint>, StoreError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT id, name, url, event_types, secret_hint, failing_since, last_failure, disabled_at, configured_at,
             created_at
         FROM webhook_endpoints WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(Row::read).transpose()
}

/// One page of the project's endpoints, newest first.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` is not an endpoint of the project.
pub async fn list(
    tx: &mut TenantTx,
    after: Option<WebhookEndpointId>,
    limit: u32,
) -> Result<Page<Endpoint>, StoreError> {
    let cursor = match after {
        Some(id) => Some(find(tx, id).await?.ok_or(StoreError::UnknownCursor)?),
        None => None,
    };
    let (created_at, id) = cursor.map(|last| (last.created_at, last.id.0)).unzip();
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, name, url, event_types, secret_hint, failing_since, last_failure, disabled_at, configured_at,
             created_at
         FROM webhook_endpoints
         WHERE project_id = $1
           AND (created_at, id) < (COALESCE($2::timestamptz, 'infinity'),
                                   COALESCE($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         ORDER BY created_at DESC, id DESC LIMIT $4",
        tx.project_id().0,
        created_at,
        id,
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, Row::read)
}

/// Changes the settings, and enables the endpoint again if it was disabled. None if there is no such endpoint.
///
/// # Errors
/// [`StoreError::NulCharacter`] names the field that cannot be stored.
pub async fn update(
    tx: &mut TenantTx,
    id: WebhookEndpointId,
    settings: &Settings,
    now: OffsetDateTime,
) -> Result<Option<Endpoint>, StoreError> {
    refuse_nul(settings)?;
    // An update that changes nothing is how a disabled endpoint is enabled; it is no change of the settings.
    sqlx::query!(
        "UPDATE webhook_endpoints
         SET name = $3, url = $4, event_types = $5, disabled_at = NULL, failing_since = NULL, last_failure = NULL,
             configured_at = CASE WHEN (name, url, event_types) IS DISTINCT FROM ($3, $4, $5::text[])
                             THEN $6 ELSE configured_at END
         WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        id.0,
        settings.name,
        settings.url,
        &words(&settings.event_types),
        now,
    )
    .execute(tx.connection())
    .await?;
    find(tx, id).await
}

/// Deletes the endpoint and what it was still to be told. Says whether it was there.
pub async fn delete(tx: &mut TenantTx, id: WebhookEndpointId) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM webhook_endpoints WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives the endpoint a new secret. The old one goes on signing beside it until `old_until`, if that is given. None if
/// there is no such endpoint.
///
/// # Errors
/// [`StoreError::Sealed`] if the old secret cannot be opened or the new one not be sealed.
pub async fn rotate_secret(
    tx: &mut TenantTx,
    keyring: &Keyring,
    id: WebhookEndpointId,
    secret: &str,
    old_until: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<Option<Endpoint>, StoreError> {
    let project_id = tx.project_id();
    let old = sqlx::query_scalar!(
        "SELECT secret FROM webhook_endpoints WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE",
        project_id.0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(old) = old else { return Ok(None) };
    let (new_place, old_place) = (
        place(project_id, id, "secret"),
        place(project_id, id, "old_secret"),
    );
    // A value opens in its own column only, so the old one is sealed anew.
    let kept = match old_until {
        Some(_) => Some(old_place.seal(keyring, new_place.open(keyring, &old)?.expose())?),
        None => None,
    };
    sqlx::query!(
        "UPDATE webhook_endpoints
         SET secret = $3, secret_hint = $4, old_secret = $5, old_secret_expires_at = $6, configured_at = $7
         WHERE project_id = $1 AND id = $2",
        project_id.0,
        id.0,
        new_place.seal(keyring, secret.as_bytes())?,
        hint(secret),
        kept,
        old_until,
        now,
    )
    .execute(tx.connection())
    .await?;
    find(tx, id).await
}

/// The secrets that sign at `now`: the current one, then an old one whose time is not over.
///
/// # Errors
/// [`StoreError::Sealed`] if one cannot be opened.
pub async fn secrets(
    tx: &mut TenantTx,
    keyring: &Keyring,
    id: WebhookEndpointId,
    now: OffsetDateTime,
) -> Result<Vec<Plaintext>, StoreError> {
    let row = sqlx::query!(
        "SELECT secret, old_secret, old_secret_expires_at FROM webhook_endpoints WHERE project_id = $1 AND id = $2",
        tx.project_id().0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else {
        return Ok(Vec::new());
    };
    let sealed = delivery::SealedSecrets {
        current: row.secret,
        old: row.old_secret.zip(row.old_secret_expires_at),
    };
    sealed.open(keyring, tx.project_id(), id, now)
}

/// Writes down that every enabled endpoint of the project that wants it is to be told of an event of `object_id`. For
/// the transaction that makes the change.
pub async fn enqueue(
    tx: &mut TenantTx,
    event_type: WebhookEventType,
    object_id: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let project_id = tx.project_id();
    let object_ids = [object_id.to_owned()];
    insert(tx.connection(), project_id, event_type, &object_ids, now).await
}

/// One event for each object.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    project_id: ProjectId,
    event_type: WebhookEventType,
    object_ids: &[String],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let event_ids: Vec<Uuid> = object_ids.iter().map(|_| WebhookEventId::new().0).collect();
    sqlx::query!(
        "INSERT INTO webhook_deliveries (id, project_id, endpoint_id, event_id, event_type, object_id, created_at)
         SELECT gen_random_uuid(), project_id, w.id, e.id, $3, e.object_id, $5
         FROM webhook_endpoints w CROSS JOIN unnest($2::uuid[], $4::text[]) AS e (id, object_id)
         WHERE project_id = $1 AND disabled_at IS NULL AND $3 = ANY (event_types)",
        project_id.0,
        &event_ids,
        event_type.as_str(),
        object_ids,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn place(project_id: ProjectId, id: WebhookEndpointId, column: &'static str) -> Place {
    Place {
        table: TABLE,
        column,
        project_id,
        row_id: id.0,
    }
}

/// Enough to tell two secrets apart, far too little to guess one.
fn hint(secret: &str) -> String {
    let tail: Vec<char> = secret.chars().rev().take(4).collect();
    format!("whsec_…{}", tail.into_iter().rev().collect::<String>())
}

fn words(event_types: &[WebhookEventType]) -> Vec<String> {
    event_types.iter().map(ToString::to_string).collect()
}

fn refuse_nul(settings: &Settings) -> Result<(), StoreError> {
    nul::refuse("name", &settings.name)?;
    nul::refuse("url", &settings.url)
}

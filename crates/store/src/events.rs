//! Events: what a job tells its tenant, in order.

use domain::{EventId, JobId, ProjectId};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use crate::lease::{self, Lease};
use crate::page::one_more;
use crate::tx::Connection;
use crate::{Page, StoreError, TenantTx, nul};

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventLevel {
    /// All is well.
    Info,
    /// Worth knowing.
    Warn,
    /// The job ends here.
    Error,
}

impl EventLevel {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    fn read(word: &str) -> Result<Self, StoreError> {
        [Self::Info, Self::Warn, Self::Error]
            .into_iter()
            .find(|level| level.as_str() == word)
            .ok_or_else(|| StoreError::corrupt("level of an event", word.to_owned()))
    }
}

/// What an event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Words.
    Message,
    /// The numbers of one step, in `data`.
    Metrics,
}

impl EventKind {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Metrics => "metrics",
        }
    }

    fn read(word: &str) -> Result<Self, StoreError> {
        [Self::Message, Self::Metrics]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| StoreError::corrupt("type of an event", word.to_owned()))
    }
}

/// An event to be told. A NUL character in it is replaced: it may quote a tenant's data, and must not fail for it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Its id. Telling the same one twice tells it once.
    pub id: EventId,
    /// How much it matters.
    pub level: EventLevel,
    /// What it carries.
    pub kind: EventKind,
    /// For people.
    pub message: String,
    /// For programs.
    pub data: Option<Value>,
    /// When it happened.
    pub created_at: OffsetDateTime,
}

impl NewEvent {
    /// An event of words.
    pub fn message(level: EventLevel, message: impl Into<String>, now: OffsetDateTime) -> Self {
        Self {
            id: EventId::new(),
            level,
            kind: EventKind::Message,
            message: message.into(),
            data: None,
            created_at: now,
        }
    }

    /// The same, of this attempt at the job: `data.attempt`.
    #[must_use]
    pub fn of_attempt(mut self, attempt: i32) -> Self {
        let data = self.data.get_or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(data) = data {
            data.insert("attempt".to_owned(), attempt.into());
        }
        self
    }

    /// The event of one step. `data.step` is the step.
    pub fn metrics(message: impl Into<String>, data: Value, now: OffsetDateTime) -> Self {
        Self {
            id: EventId::new(),
            level: EventLevel::Info,
            kind: EventKind::Metrics,
            message: message.into(),
            data: Some(data),
            created_at: now,
        }
    }
}

/// An event that was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// The job's.
    pub job_id: JobId,
    /// How much it matters.
    pub level: EventLevel,
    /// What it carries.
    pub kind: EventKind,
    /// For people.
    pub message: String,
    /// For programs.
    pub data: Option<Value>,
    /// When it happened.
    pub created_at: OffsetDateTime,
}

/// Appends events that no worker tells: the job was made or cancelled.
pub async fn append(
    tx: &mut TenantTx,
    job_id: JobId,
    events: &[NewEvent],
) -> Result<(), StoreError> {
    let project_id = tx.project_id();
    insert(tx.connection(), project_id, job_id, events).await
}

/// Appends an event that no worker tells to each of the jobs.
pub(crate) async fn append_to_all(
    tx: &mut TenantTx,
    job_ids: &[JobId],
    level: EventLevel,
    message: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = job_ids.iter().map(|_| EventId::new().0).collect();
    let job_ids: Vec<Uuid> = job_ids.iter().map(|id| id.0).collect();
    sqlx::query!(
        "INSERT INTO job_events (project_id, job_id, id, level, type, message, created_at)
         SELECT $1, e.job_id, e.id, $4, $5, $6, $7 FROM unnest($2::uuid[], $3::uuid[]) AS e (job_id, id)",
        tx.project_id().0,
        &job_ids,
        &ids,
        level.as_str(),
        EventKind::Message.as_str(),
        message,
        now,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Appends events of an attempt.
///
/// # Errors
/// [`StoreError::LeaseLost`] if the attempt no longer holds the job.
pub async fn report(
    tx: &mut TenantTx,
    lease: &Lease,
    events: &[NewEvent],
) -> Result<(), StoreError> {
    lease::hold(tx, lease).await?;
    append(tx, lease.job_id, events).await
}

pub(crate) async fn insert(
    connection: &mut PgConnection,
    project_id: ProjectId,
    job_id: JobId,
    events: &[NewEvent],
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.id.0).collect();
    let levels: Vec<&str> = events.iter().map(|event| event.level.as_str()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let messages: Vec<String> = events
        .iter()
        .map(|event| nul::replace(&event.message).into_owned())
        .collect();
    let data: Vec<Option<Value>> = events
        .iter()
        .map(|event| {
            event
                .data
                .as_ref()
                .map(|data| nul::replace_json(data).into_owned())
        })
        .collect();
    let times: Vec<OffsetDateTime> = events.iter().map(|event| event.created_at).collect();
    // In the order given: `seq` counts up along it. A conflict can only be the event itself, told again after a
    // commit whose answer was lost.
    sqlx::query!(
        "INSERT INTO job_events (project_id, job_id, id, level, type, message, data, created_at)
         SELECT $1, $2, e.id, e.level, e.type, e.message, e.data, e.created_at
         FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::timestamptz[])
              WITH ORDINALITY AS e (id, level, type, message, data, created_at, position)
         ORDER BY e.position
         ON CONFLICT DO NOTHING",
        project_id.0,
        job_id.0,
        &ids,
        &levels as &[&str],
        &kinds as &[&str],
        &messages,
        &data as &[Option<Value>],
        &times,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// One page of a job's events, newest first. Those that were withdrawn are not among them, but `after` may be one.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` was never an event of the job.
pub async fn list(
    tx: &mut TenantTx,
    job_id: JobId,
    after: Option<EventId>,
    limit: u32,
) -> Result<Page<Event>, StoreError> {
    let before_seq = match after {
        Some(after) => seq_of(tx, job_id, after)
            .await?
            .ok_or(StoreError::UnknownCursor)?,
        None => i64::MAX,
    };
    let rows = sqlx::query_as!(
        EventRow,
        "SELECT id, job_id, level, type AS kind, message, data, created_at FROM job_events
         WHERE project_id = $1 AND job_id = $2 AND seq < $3 AND withdrawn_at IS NULL
         ORDER BY seq DESC LIMIT $4",
        tx.project_id().0,
        job_id.0,
        before_seq,
        one_more(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, limit, EventRow::read)
}

/// Where a job's events stand: the place of `after`, also of one that was withdrawn, or the beginning.
///
/// # Errors
/// [`StoreError::UnknownCursor`] if `after` was never an event of the job.
pub async fn place(
    tx: &mut TenantTx,
    job_id: JobId,
    after: Option<EventId>,
) -> Result<i64, StoreError> {
    match after {
        None => Ok(0),
        Some(id) => seq_of(tx, job_id, id)
            .await?
            .ok_or(StoreError::UnknownCursor),
    }
}

/// Up to `limit` of a job's events after a [`place`], oldest first, without those withdrawn, and the place of the last.
///
/// None is ever added before the last: whoever tells an event holds the job's row, so places and commits have one order.
pub async fn following(
    tx: &mut TenantTx,
    job_id: JobId,
    place: i64,
    limit: u32,
) -> Result<(Vec<Event>, i64), StoreError> {
    let rows = sqlx::query!(
        "SELECT seq, id, job_id, level, type AS kind, message, data, created_at FROM job_events
         WHERE project_id = $1 AND job_id = $2 AND seq > $3 AND withdrawn_at IS NULL
         ORDER BY seq LIMIT $4",
        tx.project_id().0,
        job_id.0,
        place,
        i64::from(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    let last = rows.last().map_or(place, |row| row.seq);
    let events = rows.into_iter().map(|row| {
        EventRow {
            id: row.id,
            job_id: row.job_id,
            level: row.level,
            kind: row.kind,
            message: row.message,
            data: row.data,
            created_at: row.created_at,
        }
        .read()
    });
    Ok((events.collect::<Result<_, _>>()?, last))
}

/// Withdrawn events are found too: whoever was told one goes on from there.
async fn seq_of(tx: &mut TenantTx, job_id: JobId, id: EventId) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar!(
        "SELECT seq FROM job_events WHERE project_id = $1 AND job_id = $2 AND id = $3",
        tx.project_id().0,
        job_id.0,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?)
}

struct EventRow {
    id: Uuid,
    job_id: Uuid,
    level: String,
    kind: String,
    message: String,
    data: Option<Value>,
    created_at: OffsetDateTime,
}

impl EventRow {
    fn read(self) -> Result<Event, StoreError> {
        Ok(Event {
            id: EventId(self.id),
            job_id: JobId(self.job_id),
            level: EventLevel::read(&self.level)?,
            kind: EventKind::read(&self.kind)?,
            message: self.message,
            data: self.data,
            created_at: self.created_at,
        })
    }
}

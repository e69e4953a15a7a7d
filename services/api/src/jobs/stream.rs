//! `GET /v1/fine_tuning/jobs/{id}/events?stream=true`: a job's events as they happen.
//!
//! Server-sent events, oldest first: all of them, or those after `Last-Event-ID`. Each carries its id, so that a client
//! that lost its connection goes on where it was. `data: [DONE]` ends a stream whose job is over; one that ends without
//! it was cut, and is to be asked for again. It is cut, too, when its caller would no longer be let in.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use domain::{EventId, JobId};
use futures::Stream;
use store::events;
use store::{Store, StoreError};

use super::events::FineTuningJobEvent;
use super::retrieve;
use crate::AppState;
use crate::answer;
use crate::auth::{Lapse, Tenant};
use crate::error::ApiError;
use crate::feed::Watch;

const LAST_EVENT_ID: &str = "last-event-id";
/// nginx would otherwise hold events back until a buffer is full.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);
/// A job that waits is silent for hours; proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a client that was cut waits before it asks again.
const RETRY: Duration = Duration::from_secs(1);
/// Events read at once. A slow client holds no more than these in memory.
const BATCH: u32 = 100;

/// Where a stream is.
struct Position {
    tenant: Tenant,
    job_id: JobId,
    place: i64,
    /// Known before the events were read, so that none can come after those that are read.
    is_final: bool,
    /// Errors name it, also long after the request's answer began.
    request_id: String,
}

/// Begins to stream.
pub(super) async fn respond(
    state: AppState,
    tenant: &Tenant,
    job_id: JobId,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let job = retrieve::get(&mut tx, job_id).await?.job;
    let after = last_event_id(headers)?;
    let place = events::place(&mut tx, job_id, after).await;
    let place = place.map_err(|error| match error {
        StoreError::UnknownCursor => unknown_event(),
        error => error.into(),
    })?;
    tx.commit().await?;
    let watch = state.feed.watch(tenant.project_id, job_id);
    let watch =
        watch.ok_or_else(|| ApiError::unavailable("as many event streams are open as may be"))?;
    let position = Position {
        tenant: tenant.clone(),
        job_id,
        place,
        is_final: job.status.is_final(),
        request_id: answer::request_id(),
    };
    let lapse = state.callers.watch(tenant.standing);
    let events = stream_of(state.store, watch, lapse, position);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(([UNBUFFERED], Sse::new(events).keep_alive(keep_alive)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(unknown_event)
}

fn unknown_event() -> ApiError {
    ApiError::invalid(
        "Last-Event-ID",
        "`Last-Event-ID` must be the id of an event of this job; leave it out to begin with the first.",
    )
}

fn stream_of(
    store: Store,
    mut watch: Watch,
    lapse: Arc<Lapse>,
    mut position: Position,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream! {
        yield Ok(Event::default().retry(RETRY));
        loop {
            match position.read(&store).await {
                Ok(batch) if batch.is_empty() => {
                    if position.is_final {
                        yield Ok(Event::default().data("[DONE]"));
                        return;
                    }
                    let news = tokio::select! {
                        biased;
                        () = lapse.come() => None,
                        head = watch.beyond(position.place) => head,
                    };
                    let Some(head) = news else { return };
                    position.is_final = head.is_final;
                }
                Ok(batch) => {
                    for event in batch {
                        // A slow client may have been at the last one for long.
                        if lapse.has_come() {
                            return;
                        }
                        yield Ok(told(event));
                    }
                }
                Err(error) => {
                    yield Ok(failed(error, &position.request_id));
                    return;
                }
            }
            if watch.is_closed() || lapse.has_come() {
                return;
            }
        }
    }
}

impl Position {
    /// The next events, which then count as sent.
    async fn read(&mut self, store: &Store) -> Result<Vec<events::Event>, StoreError> {
        let mut tx = store.tenant_tx(self.tenant.project_id).await?;
        let (batch, place) = events::following(&mut tx, self.job_id, self.place, BATCH).await?;
        tx.commit().await?;
        self.place = place;
        Ok(batch)
    }
}

fn told(event: events::Event) -> Event {
    let id = event.id.to_string();
    Event::default()
        .id(id)
        .json_data(FineTuningJobEvent::from(event))
        .expect("an event has string keys only")
}

/// The status was sent long ago: a top-level `error` makes clients raise. Asking again goes on from the last event.
fn failed(error: StoreError, request_id: &str) -> Event {
    Event::default()
        .json_data(ApiError::from(error).into_body_of(request_id))
        .expect("an error has string keys only")
}

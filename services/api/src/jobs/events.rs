//! `GET /v1/fine_tuning/jobs/{id}/events`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use domain::{EventId, JobId};
use serde::Serialize;
use serde_json::{Value, json};
use store::events::{self, Event};
use utoipa::ToSchema;

use super::{retrieve, stream};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::{Params, PathId};
use crate::openapi::{ServerSentEvent, build};
use crate::page::{ListPage, list_page};

/// An event as a client sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct FineTuningJobEvent {
    #[schema(schema_with = build::event)]
    object: &'static str,
    #[schema(value_type = String)]
    id: EventId,
    created_at: i64,
    #[schema(schema_with = build::event_level)]
    level: &'static str,
    message: String,
    #[schema(schema_with = build::event_type)]
    r#type: &'static str,
    #[schema(value_type = Object)]
    data: Value,
}

impl From<Event> for FineTuningJobEvent {
    fn from(event: Event) -> Self {
        Self {
            object: "fine_tuning.job.event",
            id: event.id,
            created_at: event.created_at.unix_timestamp(),
            level: event.level.as_str(),
            message: event.message,
            r#type: event.kind.as_str(),
            data: event.data.unwrap_or_else(|| json!({})),
        }
    }
}

/// List a job's events, newest first: some clients take the first for the latest news.
///
/// With `stream=true` they come oldest first instead, as server-sent events, and go on until the job is over.
#[utoipa::path(
    get,
    path = "/v1/fine_tuning/jobs/{id}/events",
    tag = "Fine-tuning",
    params(
        ("id" = String, Path, description = "The job's id, `ftjob-…`."),
        ("after" = Option<String>, Query, description = "The id of the last element of the page before."),
        ("limit" = Option<i64>, Query, description = "How many elements a page has: 20 unless asked otherwise, at most 1000. What lies outside is moved to the nearest that is allowed."),
        ("stream" = Option<bool>, Query, description = "Whether to send the events as server-sent events, oldest first and as they happen, until the job is over and `data: [DONE]`."),
        ("Last-Event-ID" = Option<String>, Header, description = "With `stream=true`: only what happened after the event with this id."),
    ),
    responses((status = 200, description = "A page of events, or a stream of them.", content(
        (ListPage<FineTuningJobEvent> = "application/json"),
        (ServerSentEvent = "text/event-stream"),
    )))
)]
pub async fn list_job_events(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<JobId>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if wants_stream(&params)? {
        return stream::respond(state, &tenant, id, &headers).await;
    }
    let (after, limit) = (params.after()?, params.limit(20, 1_000)?);
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    retrieve::get(&mut tx, id).await?;
    let page = events::list(&mut tx, id, after, limit)
        .await?
        .map(FineTuningJobEvent::from);
    let page = list_page(page.data, page.has_more, |event| event.id.to_string());
    Ok(page.into_response())
}

fn wants_stream(params: &Params) -> Result<bool, ApiError> {
    match params.get("stream") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::invalid(
            "stream",
            "`stream` must be `true` or `false`.",
        )),
    }
}

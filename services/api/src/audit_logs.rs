//! `GET /v1/organization/audit_logs`, and the export of the whole log beside it.

pub mod export;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use store::audit::chain::AuditRow;
use store::audit::listing::{self, AuditListing};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Administrator;
use crate::error::ApiError;
use crate::extract::{Params, unknown_cursor};
use crate::page::{ListPage, list_page};

/// What stands before a row's number on the wire.
const ID_PREFIX: &str = "audit_log-";

/// One row of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLogObject {
    id: String,
    object: &'static str,
    /// What was done, for instance `fine_tuning.job.created`.
    r#type: String,
    effective_at: i64,
    #[schema(required)]
    project: Option<AuditLogProject>,
    actor: AuditLogActor,
    resource: AuditLogResource,
    details: serde_json::Value,
    #[schema(required)]
    request_id: Option<String>,
    prev_hash: String,
    hash: String,
}

/// The project it was done in.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLogProject {
    id: String,
}

/// Who did it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLogActor {
    /// `api_key`, `service_account`, `user` or `operator`.
    r#type: String,
    id: String,
    name: String,
    #[schema(required)]
    api_key_id: Option<String>,
    #[schema(required)]
    ip_address: Option<String>,
}

/// What it was done to.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLogResource {
    r#type: String,
    id: String,
}

impl From<AuditRow> for AuditLogObject {
    fn from(row: AuditRow) -> Self {
        Self {
            id: format!("{ID_PREFIX}{}", row.seq),
            object: "organization.audit_log",
            r#type: row.action,
            effective_at: row.at.unix_timestamp(),
            project: row
                .project_id
                .map(|id| AuditLogProject { id: id.to_string() }),
            actor: AuditLogActor {
                r#type: row.actor_kind,
                id: row.actor_id,
                name: row.actor_name,
                api_key_id: row.key_id,
                ip_address: row.address,
            },
            resource: AuditLogResource {
                r#type: row.object_kind,
                id: row.object_id,
            },
            // The database only takes JSON.
            details: serde_json::from_str(&row.details).unwrap_or_default(),
            request_id: row.request_id,
            prev_hash: hex::encode(row.prev_hash),
            hash: hex::encode(row.hash),
        }
    }
}

/// List what was done in the organization, newest first.
#[utoipa::path(
    get,
    path = "/v1/organization/audit_logs",
    tag = "Organization",
    params(
        ("limit" = Option<i64>, Query, description = "Rows of the page: 20 unless asked, 100 at most."),
        ("after" = Option<String>, Query, description = "The id of the last row of the page before."),
        ("project_ids[]" = Option<Vec<String>>, Query, description = "Only in these projects."),
        ("event_types[]" = Option<Vec<String>>, Query, description = "Only these actions."),
        ("actor_ids[]" = Option<Vec<String>>, Query, description = "Only by these keys, service accounts or users."),
        ("resource_ids[]" = Option<Vec<String>>, Query, description = "Only to these objects."),
        ("effective_at[gt]" = Option<i64>, Query, description = "After this Unix second."),
        ("effective_at[gte]" = Option<i64>, Query, description = "At this Unix second or after."),
        ("effective_at[lt]" = Option<i64>, Query, description = "Before this Unix second."),
        ("effective_at[lte]" = Option<i64>, Query, description = "At this Unix second or before."),
    ),
    responses((status = 200, body = ListPage<AuditLogObject>, description = "One page of the log."))
)]
pub async fn list_audit_logs(
    State(state): State<AppState>,
    admin: Administrator,
    params: Params,
) -> Result<Json<ListPage<AuditLogObject>>, ApiError> {
    let listing = read(&params)?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let page = listing::list(&mut tx, admin.org_id, &listing).await?;
    let page = page.map(AuditLogObject::from);
    Ok(list_page(page.data, page.has_more, |row| row.id.clone()))
}

fn read(params: &Params) -> Result<AuditListing, ApiError> {
    let words = |name: &str| params.all(name).map(str::to_owned).collect();
    let after = params.get("after").map(|text| {
        let seq = text
            .strip_prefix(ID_PREFIX)
            .and_then(|seq| seq.parse().ok());
        seq.ok_or_else(unknown_cursor)
    });
    let mut listing = AuditListing {
        after: after.transpose()?,
        limit: params.limit(20, 100)?,
        // What is no id cannot be a project's, and a list of none of them lets nothing through.
        projects: params
            .all("project_ids")
            .map(|text| text.parse().map_err(|_| no_project(text)))
            .collect::<Result<_, _>>()?,
        actions: words("event_types"),
        actors: words("actor_ids"),
        objects: words("resource_ids"),
        ..AuditListing::default()
    };
    for (bound, text) in params.map("effective_at") {
        bind(&mut listing, bound, text)?;
    }
    Ok(listing)
}

/// One bound, in whole seconds: a row belongs to the second that it is shown with.
fn bind(listing: &mut AuditListing, bound: &str, text: &str) -> Result<(), ApiError> {
    let refused = || {
        let message = "`effective_at` takes the bounds `gt`, `gte`, `lt` and `lte`, each a Unix time in seconds.";
        ApiError::invalid("effective_at", message)
    };
    let second: i64 = text.parse().map_err(|_| refused())?;
    let at = |second: i64| OffsetDateTime::from_unix_timestamp(second).map_err(|_| refused());
    let next = second.saturating_add(1);
    match bound {
        "gte" => listing.from = listing.from.max(Some(at(second)?)),
        "gt" => listing.from = listing.from.max(Some(at(next)?)),
        "lt" => listing.until = Some(earlier(listing.until, at(second)?)),
        "lte" => listing.until = Some(earlier(listing.until, at(next)?)),
        _ => return Err(refused()),
    }
    Ok(())
}

fn earlier(known: Option<OffsetDateTime>, other: OffsetDateTime) -> OffsetDateTime {
    known.map_or(other, |known| known.min(other))
}

fn no_project(text: &str) -> ApiError {
    let text: String = text.chars().take(64).collect();
    ApiError::invalid("project_ids", format!("`{text}` is not a project's id."))
}

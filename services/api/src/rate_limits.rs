//! `/v1/organization/projects/{project_id}/rate_limits`: what a project may use at most.
//!
//! OpenAI has one object per model. Here a project has one, `rl-project`, for all of them; what OpenAI has no word for is
//! in its key `attune`.

use axum::Json;
use axum::extract::State;
use domain::ProjectId;
use serde::Serialize;
use serde_json::{Value, json};
use store::OrgTx;
use store::audit::{self, Act};
use store::quotas::{self, Quotas};
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Administrator;
use crate::error::{ApiError, Thing};
use crate::extract::{Identifies, JsonBody, PathId, PathIds};
use crate::page::{ListPage, list_page};

/// The one there is.
const ID: &str = "rl-project";

/// A project's limits. Null: there is none.
#[derive(Debug, Serialize, ToSchema)]
pub struct RateLimitObject {
    id: &'static str,
    object: &'static str,
    /// Every model.
    model: &'static str,
    #[schema(required)]
    max_requests_per_1_minute: Option<u64>,
    #[schema(required)]
    max_tokens_per_1_minute: Option<u64>,
    attune: OtherLimits,
}

/// The limits that OpenAI has no word for.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "they are the words on the wire")]
pub struct OtherLimits {
    /// Jobs that wait for a worker.
    #[schema(required)]
    max_queued_jobs: Option<u64>,
    /// Bytes of all files.
    #[schema(required)]
    max_storage_bytes: Option<u64>,
    /// Tokens trained from midnight to midnight, UTC.
    #[schema(required)]
    max_trained_tokens_per_day: Option<u64>,
}

impl From<Quotas> for RateLimitObject {
    fn from(quotas: Quotas) -> Self {
        Self {
            id: ID,
            object: "project.rate_limit",
            model: "*",
            max_requests_per_1_minute: quotas.max_requests_per_minute,
            max_tokens_per_1_minute: quotas.max_tokens_per_minute,
            attune: OtherLimits {
                max_queued_jobs: quotas.max_queued_jobs,
                max_storage_bytes: quotas.max_storage_bytes,
                max_trained_tokens_per_day: quotas.max_trained_tokens_per_day,
            },
        }
    }
}

/// What can be changed about a project's limits.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct RateLimitSettings {
    #[schema(minimum = 1)]
    max_requests_per_1_minute: Option<u64>,
    #[schema(minimum = 1)]
    max_tokens_per_1_minute: Option<u64>,
    attune: Option<OtherLimitSettings>,
}

/// What can be changed about the limits that OpenAI has no word for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
#[expect(clippy::struct_field_names, reason = "they are the words on the wire")]
pub struct OtherLimitSettings {
    /// Jobs that wait for a worker.
    max_queued_jobs: Option<u64>,
    /// Bytes of all files.
    max_storage_bytes: Option<u64>,
    /// Tokens trained from midnight to midnight, UTC.
    max_trained_tokens_per_day: Option<u64>,
}

/// The id in the path; there is one.
#[derive(Debug, Clone, Copy)]
pub struct RateLimitId;

impl std::str::FromStr for RateLimitId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        (text == ID).then_some(Self).ok_or(())
    }
}

impl Identifies for RateLimitId {
    const THING: Thing = Thing::RateLimit;
}

/// Show what a project may use at most.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/rate_limits",
    tag = "Organization",
    params(("project_id" = String, Path, description = "The project's id, `proj_…`.")),
    responses((status = 200, body = ListPage<RateLimitObject>, description = "A list of one."))
)]
pub async fn list_rate_limits(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(project_id): PathId<ProjectId>,
) -> Result<Json<ListPage<RateLimitObject>>, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let limits = found(&mut tx, &admin, project_id).await?;
    Ok(list_page(
        vec![limits.into()],
        false,
        |limits: &RateLimitObject| limits.id.to_owned(),
    ))
}

/// Change what a project may use at most. A field that is not named stays; null takes the limit away.
///
/// Limits per minute hold within five seconds, the others at once.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("rate_limit_id" = String, Path, description = "`rl-project`."),
    ),
    request_body = RateLimitSettings,
    responses((status = 200, body = RateLimitObject, description = "The limits as they are now."))
)]
pub async fn modify_rate_limit(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, RateLimitId): PathIds<ProjectId, RateLimitId>,
    JsonBody(body): JsonBody,
) -> Result<Json<RateLimitObject>, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let mut limits = found(&mut tx, &admin, project_id).await?;
    change(&mut limits, &body)?;
    quotas::set(&mut tx, admin.org_id, project_id, &limits).await?;
    let act = Act::new("rate_limit.updated", "project.rate_limit", ID).project(project_id);
    let act = act.details(json!(RateLimitObject::from(limits)));
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(limits.into()))
}

async fn found(
    tx: &mut OrgTx,
    admin: &Administrator,
    project_id: ProjectId,
) -> Result<Quotas, ApiError> {
    if store::projects::find(tx, admin.org_id, project_id)
        .await?
        .is_none()
    {
        return Err(ApiError::not_found(Thing::Project, &project_id.to_string()));
    }
    Ok(quotas::find(tx, admin.org_id, project_id).await?)
}

fn change(limits: &mut Quotas, body: &Value) -> Result<(), ApiError> {
    let other = &body["attune"];
    if !matches!(other, Value::Null | Value::Object(_)) {
        return Err(ApiError::invalid("attune", "`attune` must be an object."));
    }
    for (fields, name, limit, min) in [
        (
            body,
            "max_requests_per_1_minute",
            &mut limits.max_requests_per_minute,
            1,
        ),
        (
            body,
            "max_tokens_per_1_minute",
            &mut limits.max_tokens_per_minute,
            1,
        ),
        (other, "max_queued_jobs", &mut limits.max_queued_jobs, 0),
        (other, "max_storage_bytes", &mut limits.max_storage_bytes, 0),
        (
            other,
            "max_trained_tokens_per_day",
            &mut limits.max_trained_tokens_per_day,
            0,
        ),
    ] {
        let Some(value) = fields.get(name) else {
            continue;
        };
        *limit = match value.as_u64() {
            _ if value.is_null() => None,
            Some(number) if number >= min && i64::try_from(number).is_ok() => Some(number),
            _ => {
                let message = format!(
                    "`{name}` must be a whole number, {min} or more, or null for no limit."
                );
                let path = if min == 0 {
                    format!("attune.{name}")
                } else {
                    name.to_owned()
                };
                return Err(ApiError::invalid(path, message));
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays_and_null_takes_a_limit_away() {
        let mut limits = Quotas {
            max_queued_jobs: Some(3),
            max_tokens_per_minute: Some(4),
            ..Quotas::default()
        };
        let body = json!({"max_tokens_per_1_minute": null, "attune": {"max_storage_bytes": 0}});
        change(&mut limits, &body).unwrap();
        let expected = Quotas {
            max_queued_jobs: Some(3),
            max_storage_bytes: Some(0),
            ..Quotas::default()
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for body in [
            json!({"max_requests_per_1_minute": 0}),
            json!({"max_requests_per_1_minute": 1.5}),
            json!({"max_requests_per_1_minute": "1"}),
            json!({"attune": {"max_queued_jobs": -1}}),
            json!({"attune": {"max_queued_jobs": u64::MAX}}),
            json!({"attune": 1}),
        ] {
            assert!(change(&mut Quotas::default(), &body).is_err(), "{body}");
        }
    }
}

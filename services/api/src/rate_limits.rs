//! `/v1/organization/projects/{project_id}/rate_limits`: what a project may use at most.
//!
//! OpenAI has one object per model. Here a project has one, `rl-project`, for all of them; what OpenAI has no word for is
//! in its key `attune`.

use std::ops::RangeInclusive;

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
use crate::error::{ApiError, ErrorCode, Thing};
use crate::extract::{Identifies, JsonBody, PathId, PathIds};
use crate::page::{ListPage, list_page};

/// The one there is.
const ID: &str = "rl-project";

/// A project's limits as they count: of the administrators' and the operator's the lower one. Null: there is none.
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
    /// Jobs at workers at the same time.
    #[schema(required)]
    max_running_jobs: Option<u64>,
    /// Jobs that wait for a worker.
    #[schema(required)]
    max_queued_jobs: Option<u64>,
    /// Bytes of all files, models and checkpoints.
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
                max_running_jobs: quotas.max_running_jobs,
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
    /// Jobs at workers at the same time.
    #[schema(maximum = 2_147_483_647)]
    max_running_jobs: Option<u64>,
    /// Jobs that wait for a worker.
    max_queued_jobs: Option<u64>,
    /// Bytes of all files, models and checkpoints.
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
        vec![limits.in_force().into()],
        false,
        |limits: &RateLimitObject| limits.id.to_owned(),
    ))
}

/// Change what a project may use at most. A field that is not named stays; null takes the limit away.
///
/// Whoever runs the installation may have set limits, too. They cannot be changed here: a higher number is refused, and
/// null leaves the operator's. Limits per minute hold within five seconds, the others at once.
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
    limits.change(&body)?;
    quotas::set(&mut tx, admin.org_id, project_id, &limits.own).await?;
    let act = Act::new("rate_limit.updated", "project.rate_limit", ID).project(project_id);
    let act = act.details(json!(RateLimitObject::from(limits.own)));
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(limits.in_force().into()))
}

async fn found(
    tx: &mut OrgTx,
    admin: &Administrator,
    project_id: ProjectId,
) -> Result<ProjectLimits, ApiError> {
    if store::projects::find(tx, admin.org_id, project_id)
        .await?
        .is_none()
    {
        return Err(ApiError::not_found(Thing::Project, &project_id.to_string()));
    }
    Ok(ProjectLimits {
        own: quotas::find(tx, admin.org_id, project_id).await?,
        ceiling: quotas::ceiling(tx, admin.org_id, project_id).await?,
    })
}

/// What can be changed here, and what cannot.
struct ProjectLimits {
    own: Quotas,
    /// The operator's.
    ceiling: Quotas,
}

/// How a limit is called, and from where to where it goes.
struct Field {
    name: &'static str,
    is_ours: bool,
    range: RangeInclusive<u64>,
}

impl Field {
    /// One that OpenAI has.
    fn a_minute(name: &'static str) -> Self {
        let range = 1..=i64::MAX.unsigned_abs();
        Self {
            name,
            is_ours: false,
            range,
        }
    }

    /// One in the key `attune`.
    fn ours(name: &'static str, max: u64) -> Self {
        Self {
            name,
            is_ours: true,
            range: 0..=max,
        }
    }

    /// What it is after the body, which may not name it.
    fn read(
        &self,
        body: &Value,
        before: Option<u64>,
        ceiling: Option<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let fields = if self.is_ours { &body["attune"] } else { body };
        let Some(value) = fields.get(self.name) else {
            return Ok(before);
        };
        let number = value.as_u64().filter(|number| self.range.contains(number));
        if number.is_none() && !value.is_null() {
            let (min, max) = (self.range.start(), self.range.end());
            let message = format!(
                "`{}` must be a whole number from {min} to {max}, or null for no limit.",
                self.name
            );
            return Err(ApiError::invalid(self.path(), message));
        }
        match (number, ceiling) {
            (Some(asked), Some(ceiling)) if asked > ceiling => Err(self.above(asked, ceiling)),
            _ => Ok(number),
        }
    }

    fn above(&self, asked: u64, ceiling: u64) -> ApiError {
        let message = format!(
            "`{}` cannot be {asked}: whoever runs this installation has set {ceiling} for the project. Ask them for more, \
             or set {ceiling} or less.",
            self.name
        );
        ApiError::invalid(self.path(), message).code(ErrorCode::AboveOperatorLimit)
    }

    fn path(&self) -> String {
        if self.is_ours {
            format!("attune.{}", self.name)
        } else {
            self.name.to_owned()
        }
    }
}

impl ProjectLimits {
    fn in_force(&self) -> Quotas {
        self.own.least(self.ceiling)
    }

    /// # Errors
    /// The first field that is no limit, or one above the operator's.
    fn change(&mut self, body: &Value) -> Result<(), ApiError> {
        if !matches!(&body["attune"], Value::Null | Value::Object(_)) {
            return Err(ApiError::invalid("attune", "`attune` must be an object."));
        }
        let (own, ceiling) = (&mut self.own, &self.ceiling);
        let any = i64::MAX.unsigned_abs();
        for (field, limit, ceiling) in [
            (
                Field::a_minute("max_requests_per_1_minute"),
                &mut own.max_requests_per_minute,
                ceiling.max_requests_per_minute,
            ),
            (
                Field::a_minute("max_tokens_per_1_minute"),
                &mut own.max_tokens_per_minute,
                ceiling.max_tokens_per_minute,
            ),
            (
                Field::ours("max_running_jobs", i32::MAX.unsigned_abs().into()),
                &mut own.max_running_jobs,
                ceiling.max_running_jobs,
            ),
            (
                Field::ours("max_queued_jobs", any),
                &mut own.max_queued_jobs,
                ceiling.max_queued_jobs,
            ),
            (
                Field::ours("max_storage_bytes", any),
                &mut own.max_storage_bytes,
                ceiling.max_storage_bytes,
            ),
            (
                Field::ours("max_trained_tokens_per_day", any),
                &mut own.max_trained_tokens_per_day,
                ceiling.max_trained_tokens_per_day,
            ),
        ] {
            *limit = field.read(body, *limit, ceiling)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(own: Quotas, ceiling: Quotas) -> ProjectLimits {
        ProjectLimits { own, ceiling }
    }

    #[test]
    fn what_is_not_named_stays_and_null_takes_a_limit_away() {
        let own = Quotas {
            max_queued_jobs: Some(3),
            max_tokens_per_minute: Some(4),
            ..Quotas::default()
        };
        let mut limits = limits(own, Quotas::default());
        let body = json!({"max_tokens_per_1_minute": null, "attune": {"max_storage_bytes": 0}});
        limits.change(&body).unwrap();
        let expected = Quotas {
            max_queued_jobs: Some(3),
            max_storage_bytes: Some(0),
            ..Quotas::default()
        };
        assert_eq!(limits.own, expected);
    }

    #[test]
    fn the_lower_limit_counts_and_none_above_the_operators_is_taken() {
        let ceiling = Quotas {
            max_queued_jobs: Some(3),
            ..Quotas::default()
        };
        let mut limits = limits(Quotas::default(), ceiling);
        for (asked, in_force) in [
            (json!(2), Some(2)),
            (json!(null), Some(3)),
            (json!(3), Some(3)),
        ] {
            let body = json!({"attune": {"max_queued_jobs": asked, "max_running_jobs": 9}});
            limits.change(&body).unwrap();
            assert_eq!(limits.in_force().max_queued_jobs, in_force);
            assert_eq!(limits.in_force().max_running_jobs, Some(9));
        }
        let body = json!({"attune": {"max_queued_jobs": 4}});
        assert!(limits.change(&body).is_err());
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for body in [
            json!({"max_requests_per_1_minute": 0}),
            json!({"max_requests_per_1_minute": 1.5}),
            json!({"max_requests_per_1_minute": "1"}),
            json!({"attune": {"max_queued_jobs": -1}}),
            json!({"attune": {"max_queued_jobs": u64::MAX}}),
            json!({"attune": {"max_running_jobs": 1_u64 << 31}}),
            json!({"attune": 1}),
        ] {
            let mut limits = limits(Quotas::default(), Quotas::default());
            assert!(limits.change(&body).is_err(), "{body}");
        }
    }
}

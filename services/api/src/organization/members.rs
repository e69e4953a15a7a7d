//! `/v1/organization/projects/{project_id}/users`: people in a project.

use axum::Json;
use axum::extract::State;
use domain::{OrgRole, ProjectId, Role, UserId};
use serde::Serialize;
use serde_json::{Value, json};
use store::OrgTx;
use store::audit::{self, Act};
use store::members::{self, Member};
use store::users;
use utoipa::ToSchema;

use super::users::user;
use super::{DeletedObject, LIMITS, fields, open_project, project};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::{ApiError, Thing};
use crate::extract::{JsonBody, Params, PathId, PathIds};
use crate::page::{ListPage, WhichPage, list_page};

/// A user in a project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectUser {
    id: String,
    object: &'static str,
    name: String,
    email: String,
    role: &'static str,
    added_at: i64,
}

impl From<Member> for ProjectUser {
    fn from(member: Member) -> Self {
        Self {
            id: member.user_id.to_string(),
            object: "organization.project.user",
            name: member.name,
            email: member.email,
            role: member.role.as_str(),
            added_at: member.created_at.unix_timestamp(),
        }
    }
}

/// Who is added to a project.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct NewProjectUser {
    /// A user of the organization. This or `email`.
    user_id: Option<String>,
    /// Somebody who need not be a user yet: their first token with this verified email makes them one.
    email: Option<String>,
    /// `owner`, `member` or `viewer`.
    role: String,
}

/// What can be changed about a user in a project.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct ProjectUserSettings {
    /// `owner`, `member` or `viewer`.
    role: String,
}

/// The project's user.
async fn member(
    tx: &mut OrgTx,
    admin: &Administrator,
    project_id: ProjectId,
    id: UserId,
) -> Result<Member, ApiError> {
    project(tx, admin.org_id, project_id).await?;
    members::find(tx, admin.org_id, project_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found(Thing::User, &id.to_string()))
}

fn act(action: &'static str, project_id: ProjectId, id: UserId) -> Act {
    Act::new(action, "organization.project.user", id).project(project_id)
}

/// Add a user to a project, or change the role of one who is in it.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/users",
    tag = "Organization",
    params(("project_id" = String, Path, description = "The project's id, `proj_…`.")),
    request_body = NewProjectUser,
    responses((status = 200, body = ProjectUser, description = "The user in the project."))
)]
pub async fn create_project_user(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(project_id): PathId<ProjectId>,
    JsonBody(body): JsonBody,
) -> Result<Json<ProjectUser>, ApiError> {
    let role: Role = fields::required_word(&body, "role")?;
    let now = state.clock.now();
    let mut tx = state.store.org_tx(admin.org_id).await?;
    open_project(&mut tx, admin.org_id, project_id).await?;
    let id = match fields::email(&body)? {
        Some(email) => {
            users::add(&mut tx, admin.org_id, &email, OrgRole::Reader, now)
                .await?
                .id
        }
        None => known_user(&mut tx, &admin, &body).await?,
    };
    members::set(&mut tx, admin.org_id, project_id, id, role, now).await?;
    let found = member(&mut tx, &admin, project_id, id).await?;
    let act = act("project.user.added", project_id, id).details(json!({"role": role.as_str()}));
    audit::record(&mut tx, &admin.actor(), &act, now).await?;
    tx.commit().await?;
    Ok(Json(found.into()))
}

/// The user whom `user_id` names.
async fn known_user(
    tx: &mut OrgTx,
    admin: &Administrator,
    body: &Value,
) -> Result<UserId, ApiError> {
    let Some(text) = fields::text(body, "user_id")? else {
        let message = "Either `user_id` or `email` must say who is added.";
        return Err(ApiError::invalid("user_id", message));
    };
    let missing = || ApiError::not_found(Thing::User, text).param("user_id");
    let id = text.parse().map_err(|_| missing())?;
    user(tx, admin, id)
        .await
        .map_err(|error| error.param("user_id"))?;
    Ok(id)
}

/// List a project's users, those who were added last first. Those whose role follows from a group are not listed.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/users",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        WhichPage,
    ),
    responses((status = 200, body = ListPage<ProjectUser>, description = "A page of users."))
)]
pub async fn list_project_users(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(project_id): PathId<ProjectId>,
    params: Params,
) -> Result<Json<ListPage<ProjectUser>>, ApiError> {
    let (after, limit) = (params.after()?, params.limit(LIMITS.0, LIMITS.1)?);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    project(&mut tx, admin.org_id, project_id).await?;
    let page = members::list(&mut tx, admin.org_id, project_id, after, limit).await?;
    let page = page.map(ProjectUser::from);
    Ok(list_page(page.data, page.has_more, |user| user.id.clone()))
}

/// Describe a user in a project.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/users/{user_id}",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("user_id" = String, Path, description = "The user's id, `user-…`."),
    ),
    responses((status = 200, body = ProjectUser, description = "The user in the project."))
)]
pub async fn retrieve_project_user(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, id): PathIds<ProjectId, UserId>,
) -> Result<Json<ProjectUser>, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let found = member(&mut tx, &admin, project_id, id).await?;
    Ok(Json(found.into()))
}

/// Change a user's role in a project.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/users/{user_id}",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("user_id" = String, Path, description = "The user's id, `user-…`."),
    ),
    request_body = ProjectUserSettings,
    responses((status = 200, body = ProjectUser, description = "The user as they are now in the project."))
)]
pub async fn modify_project_user(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, id): PathIds<ProjectId, UserId>,
    JsonBody(body): JsonBody,
) -> Result<Json<ProjectUser>, ApiError> {
    let role: Role = fields::required_word(&body, "role")?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    member(&mut tx, &admin, project_id, id).await?;
    members::set(
        &mut tx,
        admin.org_id,
        project_id,
        id,
        role,
        state.clock.now(),
    )
    .await?;
    let found = member(&mut tx, &admin, project_id, id).await?;
    let act = act("project.user.updated", project_id, id).details(json!({"role": role.as_str()}));
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(found.into()))
}

/// Take a user out of a project.
#[utoipa::path(
    delete,
    path = "/v1/organization/projects/{project_id}/users/{user_id}",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("user_id" = String, Path, description = "The user's id, `user-…`."),
    ),
    responses((status = 200, body = DeletedObject, description = "The user is no longer in the project."))
)]
pub async fn delete_project_user(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, id): PathIds<ProjectId, UserId>,
) -> Result<Json<DeletedObject>, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let Member { role, .. } = member(&mut tx, &admin, project_id, id).await?;
    members::remove(&mut tx, admin.org_id, project_id, id).await?;
    let act = act("project.user.deleted", project_id, id).details(json!({"role": role.as_str()}));
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(DeletedObject::of(
        "organization.project.user.deleted",
        &id,
    )))
}

//! `/v1/organization/users`: the people of the organization.

use axum::Json;
use axum::extract::State;
use domain::UserId;
use serde::Serialize;
use serde_json::json;
use store::OrgTx;
use store::audit::{self, Act};
use store::users::{self, User};
use utoipa::ToSchema;

use super::{DeletedObject, LIMITS, fields, unix};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::{ApiError, Thing};
use crate::extract::{JsonBody, Params, PathId};
use crate::page::{ListPage, WhichPage, list_page};

/// A user of the organization.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserObject {
    id: String,
    object: &'static str,
    name: String,
    email: String,
    role: &'static str,
    added_at: i64,
    /// Ours: when a token of theirs was last seen.
    #[schema(required)]
    last_seen_at: Option<i64>,
}

impl From<User> for UserObject {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            object: "organization.user",
            name: user.name,
            email: user.email,
            role: user.role.as_str(),
            added_at: user.created_at.unix_timestamp(),
            last_seen_at: unix(user.last_seen_at),
        }
    }
}

/// What can be changed about a user.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct UserSettings {
    /// `owner`, who administers the organization, or `reader`. Without this it stays.
    role: Option<String>,
}

/// The organization's user.
pub(super) async fn user(
    tx: &mut OrgTx,
    admin: &Administrator,
    id: UserId,
) -> Result<User, ApiError> {
    users::find(tx, admin.org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found(Thing::User, &id.to_string()))
}

/// List the organization's users, newest first.
#[utoipa::path(
    get,
    path = "/v1/organization/users",
    tag = "Organization",
    params(
        WhichPage,
    ),
    responses((status = 200, body = ListPage<UserObject>, description = "A page of users."))
)]
pub async fn list_users(
    State(state): State<AppState>,
    admin: Administrator,
    params: Params,
) -> Result<Json<ListPage<UserObject>>, ApiError> {
    let (after, limit) = (params.after()?, params.limit(LIMITS.0, LIMITS.1)?);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let page = users::list(&mut tx, admin.org_id, after, limit).await?;
    let page = page.map(UserObject::from);
    Ok(list_page(page.data, page.has_more, |user| user.id.clone()))
}

/// Describe a user.
#[utoipa::path(
    get,
    path = "/v1/organization/users/{user_id}",
    tag = "Organization",
    params(("user_id" = String, Path, description = "The user's id, `user-…`.")),
    responses((status = 200, body = UserObject, description = "The user."))
)]
pub async fn retrieve_user(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<UserId>,
) -> Result<Json<UserObject>, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let found = user(&mut tx, &admin, id).await?;
    Ok(Json(found.into()))
}

/// Make a user an owner or a reader of the organization.
#[utoipa::path(
    post,
    path = "/v1/organization/users/{user_id}",
    tag = "Organization",
    params(("user_id" = String, Path, description = "The user's id, `user-…`.")),
    request_body = UserSettings,
    responses((status = 200, body = UserObject, description = "The user as they are now."))
)]
pub async fn modify_user(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<UserId>,
    JsonBody(body): JsonBody,
) -> Result<Json<UserObject>, ApiError> {
    let role = fields::word(&body, "role")?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    user(&mut tx, &admin, id).await?;
    if let Some(role) = role {
        users::set_role(&mut tx, admin.org_id, id, role).await?;
    }
    let found = user(&mut tx, &admin, id).await?;
    let act = Act::new("user.updated", "organization.user", id);
    let act = act.details(json!({"role": found.role.as_str()}));
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(found.into()))
}

/// Remove a user from the organization and all its projects. Signing in does not bring them back; adding them does.
#[utoipa::path(
    delete,
    path = "/v1/organization/users/{user_id}",
    tag = "Organization",
    params(("user_id" = String, Path, description = "The user's id, `user-…`.")),
    responses((status = 200, body = DeletedObject, description = "The user is gone."))
)]
pub async fn delete_user(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<UserId>,
) -> Result<Json<DeletedObject>, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    if !users::remove(&mut tx, admin.org_id, id, state.clock.now()).await? {
        return Err(ApiError::not_found(Thing::User, &id.to_string()));
    }
    let act = Act::new("user.deleted", "organization.user", id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(DeletedObject::of("organization.user.deleted", &id)))
}

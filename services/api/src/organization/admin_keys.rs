//! `/v1/organization/admin_api_keys`: the keys that administer the organization.

use axum::Json;
use axum::extract::State;
use domain::ApiKeyId;
use serde::Serialize;
use store::api_keys::{ApiKey, KeysOf, Rights, Secret};
use utoipa::ToSchema;

use super::DeletedObject;
use super::keys::{self, KeyObject, KeyRotation};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::ApiError;
use crate::extract::{JsonBody, Params, PathId};
use crate::page::{ListPage, WhichPage, list_page};

const OF: KeysOf = KeysOf::Organization;

/// An admin key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminApiKey {
    #[serde(flatten)]
    key: KeyObject,
    owner: AdminKeyOwner,
}

/// Whose key it is: the organization's.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminKeyOwner {
    r#type: &'static str,
    object: &'static str,
    id: String,
    role: &'static str,
}

impl AdminApiKey {
    fn of(key: &ApiKey, secret: Option<&Secret>) -> Self {
        Self {
            key: KeyObject::of("organization.admin_api_key", key, secret),
            owner: AdminKeyOwner {
                r#type: "organization",
                object: "organization",
                id: key.org_id.to_string(),
                role: "owner",
            },
        }
    }
}

/// What may be said of a new admin key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct NewAdminApiKey {
    /// For people.
    name: String,
    /// When it expires. Without this it does not.
    expires_in_seconds: Option<u64>,
}

/// Make an admin key. Its secret is in this answer and never shown again.
#[utoipa::path(
    post,
    path = "/v1/organization/admin_api_keys",
    tag = "Organization",
    request_body = NewAdminApiKey,
    responses((status = 200, body = AdminApiKey, description = "The new key, with its secret in `value`."))
)]
pub async fn create_admin_api_key(
    State(state): State<AppState>,
    admin: Administrator,
    JsonBody(body): JsonBody,
) -> Result<Json<AdminApiKey>, ApiError> {
    let (key, secret) = keys::create(&state, &admin, OF, &body, &Rights::all()).await?;
    Ok(Json(AdminApiKey::of(&key, Some(&secret))))
}

/// List the organization's admin keys, newest first. Revoked ones are not listed.
#[utoipa::path(
    get,
    path = "/v1/organization/admin_api_keys",
    tag = "Organization",
    params(
        WhichPage,
    ),
    responses((status = 200, body = ListPage<AdminApiKey>, description = "A page of keys."))
)]
pub async fn list_admin_api_keys(
    State(state): State<AppState>,
    admin: Administrator,
    params: Params,
) -> Result<Json<ListPage<AdminApiKey>>, ApiError> {
    let page = keys::page(&state, &admin, OF, &params).await?;
    let page = page.map(|key| AdminApiKey::of(&key, None));
    Ok(list_page(page.data, page.has_more, |each| {
        each.key.id.clone()
    }))
}

/// Describe an admin key.
#[utoipa::path(
    get,
    path = "/v1/organization/admin_api_keys/{key_id}",
    tag = "Organization",
    params(("key_id" = String, Path, description = "The key's id, `key_…`.")),
    responses((status = 200, body = AdminApiKey, description = "The key."))
)]
pub async fn retrieve_admin_api_key(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<ApiKeyId>,
) -> Result<Json<AdminApiKey>, ApiError> {
    let found = keys::retrieve(&state, &admin, OF, id).await?;
    Ok(Json(AdminApiKey::of(&found, None)))
}

/// Revoke an admin key, be it the one of this very request.
#[utoipa::path(
    delete,
    path = "/v1/organization/admin_api_keys/{key_id}",
    tag = "Organization",
    params(("key_id" = String, Path, description = "The key's id, `key_…`.")),
    responses((status = 200, body = DeletedObject, description = "The key is revoked."))
)]
pub async fn delete_admin_api_key(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<ApiKeyId>,
) -> Result<Json<DeletedObject>, ApiError> {
    keys::revoke(&state, &admin, OF, id).await?;
    Ok(Json(DeletedObject::of(
        "organization.admin_api_key.deleted",
        &id,
    )))
}

/// Replace an admin key by a new one. The old secret stays good for a while.
#[utoipa::path(
    post,
    path = "/v1/organization/admin_api_keys/{key_id}/rotate",
    tag = "Organization",
    params(("key_id" = String, Path, description = "The key's id, `key_…`.")),
    request_body = KeyRotation,
    responses((status = 200, body = AdminApiKey, description = "The new key, with its secret in `value`."))
)]
pub async fn rotate_admin_api_key(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<ApiKeyId>,
    JsonBody(body): JsonBody,
) -> Result<Json<AdminApiKey>, ApiError> {
    let (key, secret) = keys::rotate(&state, &admin, OF, id, &body).await?;
    Ok(Json(AdminApiKey::of(&key, Some(&secret))))
}

//! `/v1/organization/projects/{project_id}/api_keys`: the keys that open a project.

use axum::Json;
use axum::extract::State;
use domain::{ApiKeyId, ProjectId};
use serde::Serialize;
use store::api_keys::{ApiKey, KeysOf, Secret};
use utoipa::ToSchema;

use super::keys::{self, KeyObject, KeyRotation};
use super::{DeletedObject, fields};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::ApiError;
use crate::extract::{JsonBody, Params, PathId, PathIds};
use crate::page::{ListPage, WhichPage, list_page};

/// A project's key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectApiKey {
    #[serde(flatten)]
    key: KeyObject,
    owner: KeyOwner,
    owner_project_access: &'static str,
    /// Ours: what the key may do in the project, where it belongs to no service account.
    role: &'static str,
    /// Ours: what the key is limited to. Empty: to nothing.
    scopes: Vec<String>,
}

/// Whose key it is. Keys that were made without a service account are the project's own.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyOwner {
    #[schema(required)]
    r#type: Option<&'static str>,
    /// Ours: the service account's id.
    #[schema(required)]
    service_account_id: Option<String>,
}

impl ProjectApiKey {
    fn of(key: &ApiKey, secret: Option<&Secret>) -> Self {
        let account = key.rights.service_account;
        Self {
            key: KeyObject::of("organization.project.api_key", key, secret),
            owner: KeyOwner {
                r#type: account.map(|_| "service_account"),
                service_account_id: account.map(|id| id.to_string()),
            },
            owner_project_access: "active",
            role: key.rights.role.as_str(),
            scopes: key.rights.scopes.words(),
        }
    }
}

/// What may be said of a new key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct NewProjectApiKey {
    /// For people.
    name: String,
    /// `owner`, `member` or `viewer`; `member` unless set. Not with `service_account_id`.
    role: Option<String>,
    /// The project's service account whose key it will be. The key has the account's role.
    service_account_id: Option<String>,
    /// Some of `files`, `jobs`, `inference` and `read_only`. None of them limits the key to nothing.
    scopes: Option<Vec<String>>,
    /// When it expires. Without this it does not.
    expires_in_seconds: Option<u64>,
}

/// Make a key for a project or one of its service accounts. Its secret is in this answer and never shown again.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/api_keys",
    tag = "Organization",
    params(("project_id" = String, Path, description = "The project's id, `proj_…`.")),
    request_body = NewProjectApiKey,
    responses((status = 200, body = ProjectApiKey, description = "The new key, with its secret in `value`."))
)]
pub async fn create_project_api_key(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(project_id): PathId<ProjectId>,
    JsonBody(body): JsonBody,
) -> Result<Json<ProjectApiKey>, ApiError> {
    let (of, rights) = (KeysOf::Project(project_id), fields::key_rights(&body)?);
    let (key, secret) = keys::create(&state, &admin, of, &body, &rights).await?;
    Ok(Json(ProjectApiKey::of(&key, Some(&secret))))
}

/// List a project's keys, newest first. Revoked ones are not listed.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/api_keys",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        WhichPage,
    ),
    responses((status = 200, body = ListPage<ProjectApiKey>, description = "A page of keys."))
)]
pub async fn list_project_api_keys(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(project_id): PathId<ProjectId>,
    params: Params,
) -> Result<Json<ListPage<ProjectApiKey>>, ApiError> {
    let page = keys::page(&state, &admin, KeysOf::Project(project_id), &params).await?;
    let page = page.map(|key| ProjectApiKey::of(&key, None));
    Ok(list_page(page.data, page.has_more, |each| {
        each.key.id.clone()
    }))
}

/// Describe a project's key.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/api_keys/{key_id}",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("key_id" = String, Path, description = "The key's id, `key_…`."),
    ),
    responses((status = 200, body = ProjectApiKey, description = "The key."))
)]
pub async fn retrieve_project_api_key(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, id): PathIds<ProjectId, ApiKeyId>,
) -> Result<Json<ProjectApiKey>, ApiError> {
    let found = keys::retrieve(&state, &admin, KeysOf::Project(project_id), id).await?;
    Ok(Json(ProjectApiKey::of(&found, None)))
}

/// Revoke a project's key: the next request that carries it is refused.
#[utoipa::path(
    delete,
    path = "/v1/organization/projects/{project_id}/api_keys/{key_id}",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("key_id" = String, Path, description = "The key's id, `key_…`."),
    ),
    responses((status = 200, body = DeletedObject, description = "The key is revoked."))
)]
pub async fn delete_project_api_key(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, id): PathIds<ProjectId, ApiKeyId>,
) -> Result<Json<DeletedObject>, ApiError> {
    keys::revoke(&state, &admin, KeysOf::Project(project_id), id).await?;
    Ok(Json(DeletedObject::of(
        "organization.project.api_key.deleted",
        &id,
    )))
}

/// Replace a project's key by a new one with the same rights. The old secret stays good for a while.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/api_keys/{key_id}/rotate",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("key_id" = String, Path, description = "The key's id, `key_…`."),
    ),
    request_body = KeyRotation,
    responses((status = 200, body = ProjectApiKey, description = "The new key, with its secret in `value`."))
)]
pub async fn rotate_project_api_key(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, id): PathIds<ProjectId, ApiKeyId>,
    JsonBody(body): JsonBody,
) -> Result<Json<ProjectApiKey>, ApiError> {
    let of = KeysOf::Project(project_id);
    let (key, secret) = keys::rotate(&state, &admin, of, id, &body).await?;
    Ok(Json(ProjectApiKey::of(&key, Some(&secret))))
}

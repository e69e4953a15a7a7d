//! `/v1/organization/projects/{project_id}/api_keys`: the keys that open a project.

use axum::Json;
use axum::extract::State;
use domain::{ApiKeyId, ProjectId};
use serde::Serialize;
use store::OrgTx;
use store::api_keys::{self, ApiKey, KeysOf, NewApiKey, Secret};
use store::audit::{self, Act};
use utoipa::ToSchema;

use super::{DeletedObject, LIMITS, fields, open_project, project, redacted, unix};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::{ApiError, Thing};
use crate::extract::{JsonBody, Params, PathId, PathIds};
use crate::page::{ListPage, list_page};

/// A project's key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectApiKey {
    id: String,
    object: &'static str,
    name: String,
    redacted_value: String,
    created_at: i64,
    #[schema(required)]
    last_used_at: Option<i64>,
    #[schema(required)]
    expires_at: Option<i64>,
    owner: KeyOwner,
    owner_project_access: &'static str,
    /// Ours: what the key may do in the project, where it belongs to no service account.
    role: &'static str,
    /// Ours: what the key is limited to. Empty: to nothing.
    scopes: Vec<String>,
    /// The secret. Only where the key was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
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

impl From<ApiKey> for ProjectApiKey {
    fn from(key: ApiKey) -> Self {
        let owner = KeyOwner {
            r#type: key.rights.service_account.map(|_| "service_account"),
            service_account_id: key.rights.service_account.map(|id| id.to_string()),
        };
        Self {
            id: key.id.to_string(),
            object: "organization.project.api_key",
            name: key.name,
            redacted_value: redacted(&key.prefix),
            created_at: key.created_at.unix_timestamp(),
            last_used_at: unix(key.last_used_at),
            expires_at: unix(key.expires_at),
            owner,
            owner_project_access: "active",
            role: key.rights.role.as_str(),
            scopes: key.rights.scopes.words(),
            value: None,
        }
    }
}

impl ProjectApiKey {
    fn with_secret((key, secret): (ApiKey, Secret)) -> Self {
        Self {
            value: Some(secret.expose().to_owned()),
            ..key.into()
        }
    }
}

/// What may be said of a new key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct NewProjectApiKey {
    /// For people.
    name: String,
    /// `owner`, `member` or `viewer`; `member` unless set.
    role: Option<String>,
    /// Some of `files`, `jobs`, `inference` and `read_only`. None of them limits the key to nothing.
    scopes: Option<Vec<String>>,
    /// When it expires. Without this it does not.
    expires_in_seconds: Option<u64>,
}

/// How a key is replaced.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct KeyRotation {
    /// For how long the old secret stays good: a day unless set, at most 30 days, 0 ends it at once.
    grace_seconds: Option<u64>,
}

/// The project's key.
async fn key(
    tx: &mut OrgTx,
    admin: &Administrator,
    project_id: ProjectId,
    id: ApiKeyId,
) -> Result<ApiKey, ApiError> {
    project(tx, admin.org_id, project_id).await?;
    api_keys::find(tx, admin.org_id, KeysOf::Project(project_id), id)
        .await?
        .ok_or_else(|| ApiError::not_found(Thing::ApiKey, &id.to_string()))
}

/// Make a key for a project. Its secret is in this answer and never shown again.
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
    let now = state.clock.now();
    let new = NewApiKey {
        org_id: admin.org_id,
        project_id: Some(project_id),
        name: fields::name(&body)?,
        expires_at: fields::expiry(&body, now)?,
    };
    let rights = fields::rights(&body)?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    open_project(&mut tx, admin.org_id, project_id).await?;
    let made = api_keys::create_with(&mut tx, &state.pepper, &new, &rights, now).await?;
    let act =
        Act::new("api_key.created", "organization.project.api_key", made.0.id).project(project_id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(ProjectApiKey::with_secret(made)))
}

/// List a project's keys, newest first. Revoked ones are not listed.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/api_keys",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("after" = Option<String>, Query, description = "The id of the last element of the page before."),
        ("limit" = Option<i64>, Query, description = "How many elements a page has: 20 unless asked otherwise, at most 100."),
    ),
    responses((status = 200, body = ListPage<ProjectApiKey>, description = "A page of keys."))
)]
pub async fn list_project_api_keys(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(project_id): PathId<ProjectId>,
    params: Params,
) -> Result<Json<ListPage<ProjectApiKey>>, ApiError> {
    let (after, limit) = (params.after()?, params.limit(LIMITS.0, LIMITS.1)?);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    project(&mut tx, admin.org_id, project_id).await?;
    let of = KeysOf::Project(project_id);
    let page = api_keys::page(&mut tx, admin.org_id, of, after, limit).await?;
    let page = page.map(ProjectApiKey::from);
    Ok(list_page(page.data, page.has_more, |key| key.id.clone()))
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
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let found = key(&mut tx, &admin, project_id, id).await?;
    Ok(Json(found.into()))
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
    let mut tx = state.store.org_tx(admin.org_id).await?;
    key(&mut tx, &admin, project_id, id).await?;
    api_keys::revoke(&mut tx, id, state.clock.now()).await?;
    let act = Act::new("api_key.deleted", "organization.project.api_key", id).project(project_id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
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
    let grace = fields::grace(&body)?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    open_project(&mut tx, admin.org_id, project_id).await?;
    let old = key(&mut tx, &admin, project_id, id).await?;
    let made = api_keys::rotate(&mut tx, &state.pepper, &old, grace, state.clock.now()).await?;
    let act = Act::new("api_key.rotated", "organization.project.api_key", id).project(project_id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(ProjectApiKey::with_secret(made)))
}

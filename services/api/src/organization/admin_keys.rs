//! `/v1/organization/admin_api_keys`: the keys that administer the organization.

use axum::Json;
use axum::extract::State;
use domain::ApiKeyId;
use serde::Serialize;
use store::OrgTx;
use store::api_keys::{self, ApiKey, KeysOf, NewApiKey, Secret};
use store::audit::{self, Act};
use utoipa::ToSchema;

use super::api_keys::KeyRotation;
use super::{DeletedObject, LIMITS, fields, redacted, unix};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::{ApiError, Thing};
use crate::extract::{JsonBody, Params, PathId};
use crate::page::{ListPage, list_page};

/// An admin key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminApiKey {
    id: String,
    object: &'static str,
    name: String,
    redacted_value: String,
    created_at: i64,
    #[schema(required)]
    last_used_at: Option<i64>,
    #[schema(required)]
    expires_at: Option<i64>,
    owner: AdminKeyOwner,
    /// The secret. Only where the key was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// Whose key it is: the organization's.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminKeyOwner {
    r#type: &'static str,
    object: &'static str,
    id: String,
    role: &'static str,
}

impl From<ApiKey> for AdminApiKey {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            object: "organization.admin_api_key",
            name: key.name,
            redacted_value: redacted(&key.prefix),
            created_at: key.created_at.unix_timestamp(),
            last_used_at: unix(key.last_used_at),
            expires_at: unix(key.expires_at),
            owner: AdminKeyOwner {
                r#type: "organization",
                object: "organization",
                id: key.org_id.to_string(),
                role: "owner",
            },
            value: None,
        }
    }
}

impl AdminApiKey {
    fn with_secret((key, secret): (ApiKey, Secret)) -> Self {
        Self {
            value: Some(secret.expose().to_owned()),
            ..key.into()
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

async fn key(tx: &mut OrgTx, admin: &Administrator, id: ApiKeyId) -> Result<ApiKey, ApiError> {
    api_keys::find(tx, admin.org_id, KeysOf::Organization, id)
        .await?
        .ok_or_else(|| ApiError::not_found(Thing::ApiKey, &id.to_string()))
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
    let now = state.clock.now();
    let new = NewApiKey {
        org_id: admin.org_id,
        project_id: None,
        name: fields::name(&body)?,
        expires_at: fields::expiry(&body, now)?,
    };
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let made = api_keys::create(&mut tx, &state.pepper, &new, now).await?;
    let act = Act::new(
        "admin_api_key.created",
        "organization.admin_api_key",
        made.0.id,
    );
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(AdminApiKey::with_secret(made)))
}

/// List the organization's admin keys, newest first. Revoked ones are not listed.
#[utoipa::path(
    get,
    path = "/v1/organization/admin_api_keys",
    tag = "Organization",
    params(
        ("after" = Option<String>, Query, description = "The id of the last element of the page before."),
        ("limit" = Option<i64>, Query, description = "How many elements a page has: 20 unless asked otherwise, at most 100."),
    ),
    responses((status = 200, body = ListPage<AdminApiKey>, description = "A page of keys."))
)]
pub async fn list_admin_api_keys(
    State(state): State<AppState>,
    admin: Administrator,
    params: Params,
) -> Result<Json<ListPage<AdminApiKey>>, ApiError> {
    let (after, limit) = (params.after()?, params.limit(LIMITS.0, LIMITS.1)?);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let of = KeysOf::Organization;
    let page = api_keys::page(&mut tx, admin.org_id, of, after, limit).await?;
    let page = page.map(AdminApiKey::from);
    Ok(list_page(page.data, page.has_more, |key| key.id.clone()))
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
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let found = key(&mut tx, &admin, id).await?;
    Ok(Json(found.into()))
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
    let mut tx = state.store.org_tx(admin.org_id).await?;
    key(&mut tx, &admin, id).await?;
    api_keys::revoke(&mut tx, id, state.clock.now()).await?;
    let act = Act::new("admin_api_key.deleted", "organization.admin_api_key", id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
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
    let grace = fields::grace(&body)?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let old = key(&mut tx, &admin, id).await?;
    let made = api_keys::rotate(&mut tx, &state.pepper, &old, grace, state.clock.now()).await?;
    let act = Act::new("admin_api_key.rotated", "organization.admin_api_key", id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(AdminApiKey::with_secret(made)))
}

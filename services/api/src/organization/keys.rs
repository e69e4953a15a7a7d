//! What the keys of a project and those of the organization have in common: how they are shown, made, revoked and
//! replaced. Each change is one transaction with its row of the audit log.

use domain::ApiKeyId;
use serde::Serialize;
use serde_json::Value;
use store::OrgTx;
use store::api_keys::{self, ApiKey, KeyAct, KeysOf, NewApiKey, Rights, Secret};
use store::audit;
use utoipa::ToSchema;

use super::service_accounts::service_account;
use super::{LIMITS, fields, open_project, project, redacted, unix};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::{ApiError, Thing};
use crate::extract::Params;

/// What is shown of every key.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyObject {
    pub(super) id: String,
    object: &'static str,
    name: String,
    redacted_value: String,
    created_at: i64,
    #[schema(required)]
    last_used_at: Option<i64>,
    #[schema(required)]
    expires_at: Option<i64>,
    /// The secret. Only where the key was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// How a key is replaced.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct KeyRotation {
    /// For how long the old secret stays good: a day unless set, at most 30 days, 0 ends it at once.
    grace_seconds: Option<u64>,
}

impl KeyObject {
    pub(super) fn of(object: &'static str, key: &ApiKey, secret: Option<&Secret>) -> Self {
        Self {
            id: key.id.to_string(),
            object,
            name: key.name.clone(),
            redacted_value: redacted(&key.prefix),
            created_at: key.created_at.unix_timestamp(),
            last_used_at: unix(key.last_used_at),
            expires_at: unix(key.expires_at),
            value: secret.map(|secret| secret.expose().to_owned()),
        }
    }
}

/// A key with what `body` says of it.
pub(super) async fn create(
    state: &AppState,
    admin: &Administrator,
    of: KeysOf,
    body: &Value,
    rights: &Rights,
) -> Result<(ApiKey, Secret), ApiError> {
    let now = state.clock.now();
    let new = NewApiKey {
        org_id: admin.org_id,
        project_id: of.project(),
        name: fields::name(body)?,
        expires_at: fields::expiry(body, now)?,
    };
    let mut tx = state.store.org_tx(admin.org_id).await?;
    must_be_open(&mut tx, admin, of).await?;
    if let (Some(project_id), Some(id)) = (of.project(), rights.service_account) {
        let found = service_account(&mut tx, admin, project_id, id).await;
        found.map_err(|error| error.param("service_account_id"))?;
    }
    let made = api_keys::create_with(&mut tx, &state.pepper, &new, rights, now).await?;
    audit::record(&mut tx, &admin.actor(), &made.0.act(KeyAct::Created), now).await?;
    tx.commit().await?;
    Ok(made)
}

pub(super) async fn page(
    state: &AppState,
    admin: &Administrator,
    of: KeysOf,
    params: &Params,
) -> Result<store::Page<ApiKey>, ApiError> {
    let (after, limit) = (params.after()?, params.limit(LIMITS.0, LIMITS.1)?);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    must_be_there(&mut tx, admin, of).await?;
    Ok(api_keys::page(&mut tx, admin.org_id, of, after, limit).await?)
}

pub(super) async fn retrieve(
    state: &AppState,
    admin: &Administrator,
    of: KeysOf,
    id: ApiKeyId,
) -> Result<ApiKey, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    find(&mut tx, admin, of, id).await
}

pub(super) async fn revoke(
    state: &AppState,
    admin: &Administrator,
    of: KeysOf,
    id: ApiKeyId,
) -> Result<(), ApiError> {
    let now = state.clock.now();
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let key = find(&mut tx, admin, of, id).await?;
    api_keys::revoke(&mut tx, id, now).await?;
    audit::record(&mut tx, &admin.actor(), &key.act(KeyAct::Deleted), now).await?;
    Ok(tx.commit().await?)
}

/// The new key in place of the one with this id, which stays good for the `grace_seconds` of `body`.
pub(super) async fn rotate(
    state: &AppState,
    admin: &Administrator,
    of: KeysOf,
    id: ApiKeyId,
    body: &Value,
) -> Result<(ApiKey, Secret), ApiError> {
    let (grace, now) = (fields::grace(body)?, state.clock.now());
    let mut tx = state.store.org_tx(admin.org_id).await?;
    must_be_open(&mut tx, admin, of).await?;
    let old = find(&mut tx, admin, of, id).await?;
    let made = api_keys::rotate(&mut tx, &state.pepper, &old, grace, now).await?;
    let act = old.act(KeyAct::Rotated(made.0.id));
    audit::record(&mut tx, &admin.actor(), &act, now).await?;
    tx.commit().await?;
    Ok(made)
}

async fn find(
    tx: &mut OrgTx,
    admin: &Administrator,
    of: KeysOf,
    id: ApiKeyId,
) -> Result<ApiKey, ApiError> {
    must_be_there(tx, admin, of).await?;
    api_keys::find(tx, admin.org_id, of, id)
        .await?
        .ok_or_else(|| ApiError::not_found(Thing::ApiKey, &id.to_string()))
}

async fn must_be_there(tx: &mut OrgTx, admin: &Administrator, of: KeysOf) -> Result<(), ApiError> {
    if let Some(id) = of.project() {
        project(tx, admin.org_id, id).await?;
    }
    Ok(())
}

async fn must_be_open(tx: &mut OrgTx, admin: &Administrator, of: KeysOf) -> Result<(), ApiError> {
    if let Some(id) = of.project() {
        open_project(tx, admin.org_id, id).await?;
    }
    Ok(())
}

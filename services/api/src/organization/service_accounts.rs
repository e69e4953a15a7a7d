//! `/v1/organization/projects/{project_id}/service_accounts`: programs with a role in a project.

use axum::Json;
use axum::extract::State;
use domain::{ProjectId, ServiceAccountId};
use serde::Serialize;
use store::OrgTx;
use store::api_keys::{self, ApiKey, KeyAct, NewApiKey, Rights, Secret};
use store::audit;
use store::service_accounts::{self, AccountAct, FIRST_KEY, ServiceAccount};
use utoipa::ToSchema;

use super::{DeletedObject, LIMITS, fields, open_project, project, unix};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::{ApiError, Thing};
use crate::extract::{JsonBody, Params, PathId, PathIds};
use crate::page::{ListPage, WhichPage, list_page};

/// A service account.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceAccountObject {
    id: String,
    object: &'static str,
    name: String,
    role: &'static str,
    created_at: i64,
}

impl From<&ServiceAccount> for ServiceAccountObject {
    fn from(account: &ServiceAccount) -> Self {
        Self {
            id: account.id.to_string(),
            object: "organization.project.service_account",
            name: account.name.clone(),
            role: account.role.as_str(),
            created_at: account.created_at.unix_timestamp(),
        }
    }
}

/// A service account that was made just now, with its key.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewServiceAccountObject {
    #[serde(flatten)]
    account: ServiceAccountObject,
    #[schema(required)]
    api_key: Option<ServiceAccountKey>,
}

/// The key of a new service account. Its secret is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceAccountKey {
    id: String,
    object: &'static str,
    name: String,
    created_at: i64,
    #[schema(required)]
    expires_at: Option<i64>,
    value: String,
}

impl ServiceAccountKey {
    fn of(key: ApiKey, secret: &Secret) -> Self {
        Self {
            id: key.id.to_string(),
            object: "organization.project.service_account.api_key",
            name: key.name,
            created_at: key.created_at.unix_timestamp(),
            expires_at: unix(key.expires_at),
            value: secret.expose().to_owned(),
        }
    }
}

/// What may be said of a new service account.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct NewServiceAccount {
    /// For people.
    name: String,
    /// Ours: `owner`, `member` or `viewer`; `member` unless set.
    role: Option<String>,
    /// Ours: what its key is limited to, some of `files`, `jobs`, `inference` and `read_only`.
    scopes: Option<Vec<String>>,
    /// When its key expires. Without this it does not.
    expires_in_seconds: Option<u64>,
    /// Make no key yet: `service_account_id` of a new key names the account later.
    create_service_account_only: Option<bool>,
}

/// The project's service account.
pub(super) async fn service_account(
    tx: &mut OrgTx,
    admin: &Administrator,
    project_id: ProjectId,
    id: ServiceAccountId,
) -> Result<ServiceAccount, ApiError> {
    project(tx, admin.org_id, project_id).await?;
    let found = service_accounts::find(tx, admin.org_id, project_id, id).await?;
    found.ok_or_else(|| ApiError::not_found(Thing::ServiceAccount, &id.to_string()))
}

/// Make a service account and a key for it. The secret is in this answer and never shown again.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/service_accounts",
    tag = "Organization",
    params(("project_id" = String, Path, description = "The project's id, `proj_…`.")),
    request_body = NewServiceAccount,
    responses((status = 200, body = NewServiceAccountObject, description = "The new service account, with its key's secret."))
)]
pub async fn create_service_account(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(project_id): PathId<ProjectId>,
    JsonBody(body): JsonBody,
) -> Result<Json<NewServiceAccountObject>, ApiError> {
    let now = state.clock.now();
    let Rights { role, scopes, .. } = fields::rights(&body)?;
    let account = ServiceAccount {
        id: ServiceAccountId::new(),
        project_id,
        org_id: admin.org_id,
        name: fields::name(&body)?,
        role,
        created_at: now,
    };
    let new = NewApiKey {
        org_id: admin.org_id,
        project_id: Some(project_id),
        name: FIRST_KEY.to_owned(),
        expires_at: fields::expiry(&body, now)?,
    };
    let rights = Rights::of_account(account.id, scopes);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    open_project(&mut tx, admin.org_id, project_id).await?;
    service_accounts::create(&mut tx, &account).await?;
    let made = if body["create_service_account_only"] == true {
        None
    } else {
        Some(api_keys::create_with(&mut tx, &state.pepper, &new, &rights, now).await?)
    };
    let key = made.as_ref().map(|(key, _)| key);
    let act = account.act(AccountAct::Created(key.map(|key| key.id)));
    audit::record(&mut tx, &admin.actor(), &act, now).await?;
    if let Some(key) = key {
        audit::record(&mut tx, &admin.actor(), &key.act(KeyAct::Created), now).await?;
    }
    tx.commit().await?;
    Ok(Json(NewServiceAccountObject {
        account: (&account).into(),
        api_key: made.map(|(key, secret)| ServiceAccountKey::of(key, &secret)),
    }))
}

/// List a project's service accounts, newest first.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/service_accounts",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        WhichPage,
    ),
    responses((status = 200, body = ListPage<ServiceAccountObject>, description = "A page of service accounts."))
)]
pub async fn list_service_accounts(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(project_id): PathId<ProjectId>,
    params: Params,
) -> Result<Json<ListPage<ServiceAccountObject>>, ApiError> {
    let (after, limit) = (params.after()?, params.limit(LIMITS.0, LIMITS.1)?);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    project(&mut tx, admin.org_id, project_id).await?;
    let page = service_accounts::list(&mut tx, admin.org_id, project_id, after, limit).await?;
    let page = page.map(|account| ServiceAccountObject::from(&account));
    Ok(list_page(page.data, page.has_more, |each| each.id.clone()))
}

/// Describe a service account.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("service_account_id" = String, Path, description = "The service account's id, `svc_acct_…`."),
    ),
    responses((status = 200, body = ServiceAccountObject, description = "The service account."))
)]
pub async fn retrieve_service_account(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, id): PathIds<ProjectId, ServiceAccountId>,
) -> Result<Json<ServiceAccountObject>, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let account = service_account(&mut tx, &admin, project_id, id).await?;
    Ok(Json((&account).into()))
}

/// Delete a service account: the next request with one of its keys is refused.
#[utoipa::path(
    delete,
    path = "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}",
    tag = "Organization",
    params(
        ("project_id" = String, Path, description = "The project's id, `proj_…`."),
        ("service_account_id" = String, Path, description = "The service account's id, `svc_acct_…`."),
    ),
    responses((status = 200, body = DeletedObject, description = "The service account is gone and its keys are revoked."))
)]
pub async fn delete_service_account(
    State(state): State<AppState>,
    admin: Administrator,
    PathIds(project_id, id): PathIds<ProjectId, ServiceAccountId>,
) -> Result<Json<DeletedObject>, ApiError> {
    let now = state.clock.now();
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let account = service_account(&mut tx, &admin, project_id, id).await?;
    service_accounts::delete(&mut tx, admin.org_id, project_id, id, now).await?;
    let act = account.act(AccountAct::Deleted);
    audit::record(&mut tx, &admin.actor(), &act, now).await?;
    tx.commit().await?;
    Ok(Json(DeletedObject::of(
        "organization.project.service_account.deleted",
        &id,
    )))
}

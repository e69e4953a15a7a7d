//! `/v1/fine_tuning/checkpoints/{model}/permissions`: which other projects may use a model or checkpoint.

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::Uri;
use axum::http::request::Parts;
use domain::{PermissionId, ProjectId};
use serde::Serialize;
use serde_json::{Value, json};
use store::OrgTx;
use store::audit::{self, Act};
use store::permissions::{self, Permission, PermissionListing, PermittedModel};
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Administrator;
use crate::error::{ApiError, Thing};
use crate::extract::{JsonBody, Params};
use crate::organization::DeletedObject;
use crate::page::{ListPage, list_page};

/// How the paths of these routes begin.
const BEGINNING: &str = "/v1/fine_tuning/checkpoints/";
/// Projects of one request.
const MAX_PROJECTS: usize = 100;

/// That a project may use the model.
#[derive(Debug, Serialize, ToSchema)]
pub struct PermissionObject {
    id: String,
    object: &'static str,
    created_at: i64,
    project_id: String,
}

impl From<Permission> for PermissionObject {
    fn from(permission: Permission) -> Self {
        Self {
            id: permission.id.to_string(),
            object: "checkpoint.permission",
            created_at: permission.created_at.unix_timestamp(),
            project_id: permission.project_id.to_string(),
        }
    }
}

/// Who may use the model from now on.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct NewPermissions {
    /// Projects of the organization.
    project_ids: Vec<String>,
}

/// The names in the path of these routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    model: String,
    permission: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let names = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let mut names = names
            .map_or_else(|_| Vec::new(), |Path(names)| names)
            .into_iter();
        let model = names.next().map(|(_, model)| model).unwrap_or_default();
        if model.is_empty() || model.contains('\0') {
            return Err(ApiError::not_found(Thing::Model, &model.replace('\0', "")));
        }
        Ok(Self {
            model,
            permission: names.next().map(|(_, id)| id),
        })
    }
}

/// Makes one segment of a model's name whose slashes stand as they are, so that such a path finds its route: a pattern
/// can hold a name of several segments at its end only.
pub async fn one_segment(mut request: Request) -> Request {
    if let Some(uri) = encoded(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn encoded(uri: &Uri) -> Option<Uri> {
    let rest = uri.path().strip_prefix(BEGINNING)?;
    let (name, end) = rest.rsplit_once("/permissions")?;
    if !name.contains('/') || !(end.is_empty() || end.starts_with('/')) {
        return None;
    }
    let name = name.replace('/', "%2F");
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    format!("{BEGINNING}{name}/permissions{end}{query}")
        .parse()
        .ok()
}

/// The organization's model. Another's is not there, by row security.
async fn model(tx: &mut OrgTx, name: &str) -> Result<PermittedModel, ApiError> {
    permissions::model(tx, name)
        .await?
        .ok_or_else(|| ApiError::not_found(Thing::Model, name))
}

/// Let projects of the organization use a model. They see it at once, and can neither change nor delete it.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/checkpoints/{model}/permissions",
    tag = "Fine-tuning",
    params(("model" = String, Path, description = "The name of a fine-tuned model or of a checkpoint.")),
    request_body = NewPermissions,
    responses((status = 200, body = ListPage<PermissionObject>, description = "The permissions, in the order of `project_ids`."))
)]
pub async fn create_permissions(
    State(state): State<AppState>,
    admin: Administrator,
    named: Named,
    JsonBody(body): JsonBody,
) -> Result<Json<ListPage<PermissionObject>>, ApiError> {
    let project_ids = project_ids(&body)?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let model = model(&mut tx, &named.model).await?;
    let mut created = Vec::with_capacity(project_ids.len());
    for text in project_ids {
        let missing = || ApiError::not_found(Thing::Project, text).param("project_ids");
        let id: ProjectId = text.parse().map_err(|_| missing())?;
        let found = store::projects::find(&mut tx, admin.org_id, id).await?;
        found.ok_or_else(missing)?;
        let permission = permissions::create(&mut tx, &model, id, state.clock.now()).await?;
        created.push(PermissionObject::from(permission));
    }
    for permission in &created {
        let details = json!({"model": named.model, "project_id": permission.project_id});
        let act = Act::new(
            "checkpoint.permission.created",
            "checkpoint.permission",
            &permission.id,
        );
        let act = act.details(details);
        audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    }
    tx.commit().await?;
    Ok(list_page(created, false, |each| each.id.clone()))
}

fn project_ids(body: &Value) -> Result<Vec<&str>, ApiError> {
    let list = body["project_ids"].as_array();
    let ids: Option<Vec<&str>> = list.and_then(|ids| ids.iter().map(Value::as_str).collect());
    ids.filter(|ids| (1..=MAX_PROJECTS).contains(&ids.len()))
        .ok_or_else(|| {
            let message =
                format!("`project_ids` must be a list of 1 to {MAX_PROJECTS} project ids.");
            ApiError::invalid("project_ids", message)
        })
}

/// List who may use a model beside the project that owns it.
#[utoipa::path(
    get,
    path = "/v1/fine_tuning/checkpoints/{model}/permissions",
    tag = "Fine-tuning",
    params(
        ("model" = String, Path, description = "The name of a fine-tuned model or of a checkpoint."),
        ("project_id" = Option<String>, Query, description = "Only this project's permission."),
        ("after" = Option<String>, Query, description = "The id of the last element of the page before."),
        ("limit" = Option<i64>, Query, description = "How many elements a page has: 10 unless asked otherwise, at most 100."),
        ("order" = Option<String>, Query, description = "`ascending` or `descending` by the time of creation; `descending` unless asked otherwise."),
    ),
    responses((status = 200, body = ListPage<PermissionObject>, description = "A page of permissions."))
)]
pub async fn list_permissions(
    State(state): State<AppState>,
    admin: Administrator,
    named: Named,
    params: Params,
) -> Result<Json<ListPage<PermissionObject>>, ApiError> {
    let project_id = params.get("project_id").map(str::parse).transpose();
    let listing = PermissionListing {
        project_id: project_id
            .map_err(|_| ApiError::invalid("project_id", "`project_id` is no project's id."))?,
        after: params.after()?,
        limit: params.limit(10, 100)?,
        ascending: ascending(&params)?,
    };
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let model = model(&mut tx, &named.model).await?;
    let page = permissions::list(&mut tx, &model, listing).await?;
    let page = page.map(PermissionObject::from);
    Ok(list_page(page.data, page.has_more, |each| each.id.clone()))
}

/// This list alone spells its orders out.
fn ascending(params: &Params) -> Result<bool, ApiError> {
    match params.get("order") {
        None | Some("descending") => Ok(false),
        Some("ascending") => Ok(true),
        Some(_) => {
            let message = "`order` must be `ascending` or `descending`.";
            Err(ApiError::invalid("order", message))
        }
    }
}

/// Take a permission back: the project does not see the model from now on.
#[utoipa::path(
    delete,
    path = "/v1/fine_tuning/checkpoints/{model}/permissions/{permission_id}",
    tag = "Fine-tuning",
    params(
        ("model" = String, Path, description = "The name of a fine-tuned model or of a checkpoint."),
        ("permission_id" = String, Path, description = "The permission's id, `cp_…`."),
    ),
    responses((status = 200, body = DeletedObject, description = "The permission is gone."))
)]
pub async fn delete_permission(
    State(state): State<AppState>,
    admin: Administrator,
    named: Named,
) -> Result<Json<DeletedObject>, ApiError> {
    let text = named.permission.unwrap_or_default();
    let missing = || ApiError::not_found(Thing::Permission, &text);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let model = model(&mut tx, &named.model).await?;
    let id: PermissionId = text.parse().map_err(|_| missing())?;
    if !permissions::delete(&mut tx, &model, id).await? {
        return Err(missing());
    }
    let act = Act::new("checkpoint.permission.deleted", "checkpoint.permission", id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(DeletedObject::of("checkpoint.permission", &id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<String> {
        encoded(&text.parse().unwrap()).map(|uri| uri.to_string())
    }

    #[test]
    fn a_raw_name_becomes_one_segment() {
        assert_eq!(
            path("/v1/fine_tuning/checkpoints/ft:a/b:acme::x/permissions/cp_1?x=/").as_deref(),
            Some("/v1/fine_tuning/checkpoints/ft:a%2Fb:acme::x/permissions/cp_1?x=/")
        );
        // The name may hold the word itself.
        assert_eq!(
            path("/v1/fine_tuning/checkpoints/a/permissions/b/permissions").as_deref(),
            Some("/v1/fine_tuning/checkpoints/a%2Fpermissions%2Fb/permissions")
        );
    }

    #[test]
    fn other_paths_are_left_alone() {
        for same in [
            "/v1/fine_tuning/checkpoints/ft:a%2Fb/permissions",
            "/v1/fine_tuning/checkpoints/a/b/permissionss",
            "/v1/fine_tuning/jobs/a/b/permissions",
        ] {
            assert_eq!(path(same), None, "{same}");
        }
    }
}

//! `/v1/organization/projects`.

use artifacts::keys;
use axum::Json;
use axum::extract::State;
use domain::ProjectId;
use serde::Serialize;
use store::archiving;
use store::audit::{self, Act};
use store::projects::{self, ListedProject};
use utoipa::ToSchema;

use super::{LIMITS, fields, open_project, project, unix};
use crate::AppState;
use crate::auth::Administrator;
use crate::error::ApiError;
use crate::extract::{JsonBody, Params, PathId};
use crate::page::{ListPage, WhichPage, list_page};

/// A project as an administrator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectObject {
    id: String,
    object: &'static str,
    name: String,
    status: &'static str,
    created_at: i64,
    #[schema(required)]
    archived_at: Option<i64>,
}

impl From<ListedProject> for ProjectObject {
    fn from(listed: ListedProject) -> Self {
        Self {
            id: listed.project.id.to_string(),
            object: "organization.project",
            name: listed.project.name,
            status: match listed.archived_at {
                None => "active",
                Some(_) => "archived",
            },
            created_at: listed.project.created_at.unix_timestamp(),
            archived_at: unix(listed.archived_at),
        }
    }
}

/// What is said of a new project.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct NewProject {
    /// For people; names may repeat.
    name: String,
}

/// What can be changed about a project.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: fields are read one by one")]
pub struct ProjectSettings {
    /// For people; names may repeat. Without this it stays.
    name: Option<String>,
}

/// Make a project. It has no keys yet: make a service account or an API key for it.
#[utoipa::path(
    post,
    path = "/v1/organization/projects",
    tag = "Organization",
    request_body = NewProject,
    responses((status = 200, body = ProjectObject, description = "The new project."))
)]
pub async fn create_project(
    State(state): State<AppState>,
    admin: Administrator,
    JsonBody(body): JsonBody,
) -> Result<Json<ProjectObject>, ApiError> {
    let name = fields::name(&body)?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let project = projects::create_named(&mut tx, admin.org_id, &name, state.clock.now()).await?;
    let act = Act::new("project.created", "organization.project", project.id).project(project.id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    let archived_at = None;
    Ok(Json(
        ListedProject {
            project,
            archived_at,
        }
        .into(),
    ))
}

/// List the organization's projects, newest first.
#[utoipa::path(
    get,
    path = "/v1/organization/projects",
    tag = "Organization",
    params(
        WhichPage,
        ("include_archived" = Option<String>, Query, description = "`true` lists archived projects, too."),
    ),
    responses((status = 200, body = ListPage<ProjectObject>, description = "A page of projects."))
)]
pub async fn list_projects(
    State(state): State<AppState>,
    admin: Administrator,
    params: Params,
) -> Result<Json<ListPage<ProjectObject>>, ApiError> {
    let include_archived = params.get("include_archived") == Some("true");
    let (after, limit) = (params.after()?, params.limit(LIMITS.0, LIMITS.1)?);
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let page = projects::list(&mut tx, admin.org_id, include_archived, after, limit).await?;
    let page = page.map(ProjectObject::from);
    Ok(list_page(page.data, page.has_more, |each| each.id.clone()))
}

/// Describe a project.
#[utoipa::path(
    get,
    path = "/v1/organization/projects/{project_id}",
    tag = "Organization",
    params(("project_id" = String, Path, description = "The project's id, `proj_…`.")),
    responses((status = 200, body = ProjectObject, description = "The project."))
)]
pub async fn retrieve_project(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<ProjectId>,
) -> Result<Json<ProjectObject>, ApiError> {
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let found = project(&mut tx, admin.org_id, id).await?;
    Ok(Json(found.into()))
}

/// Give a project another name. The names of its models stay.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}",
    tag = "Organization",
    params(("project_id" = String, Path, description = "The project's id, `proj_…`.")),
    request_body = ProjectSettings,
    responses((status = 200, body = ProjectObject, description = "The project as it is now."))
)]
pub async fn modify_project(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<ProjectId>,
    JsonBody(body): JsonBody,
) -> Result<Json<ProjectObject>, ApiError> {
    let name = fields::optional_name(&body)?;
    let mut tx = state.store.org_tx(admin.org_id).await?;
    open_project(&mut tx, admin.org_id, id).await?;
    if let Some(name) = name {
        projects::rename(&mut tx, admin.org_id, id, &name).await?;
    }
    let found = project(&mut tx, admin.org_id, id).await?;
    let act = Act::new("project.updated", "organization.project", id).project(id);
    audit::record(&mut tx, &admin.actor(), &act, state.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(found.into()))
}

/// Archive a project. There is no way back; archiving an archived one changes nothing.
///
/// Its keys and users are refused from now on, and what it has under way is cancelled: jobs, batches, uploads. What it
/// holds stays.
#[utoipa::path(
    post,
    path = "/v1/organization/projects/{project_id}/archive",
    tag = "Organization",
    params(("project_id" = String, Path, description = "The project's id, `proj_…`.")),
    responses((status = 200, body = ProjectObject, description = "The archived project."))
)]
pub async fn archive_project(
    State(state): State<AppState>,
    admin: Administrator,
    PathId(id): PathId<ProjectId>,
) -> Result<Json<ProjectObject>, ApiError> {
    let now = state.clock.now();
    let mut tx = state.store.org_tx(admin.org_id).await?;
    project(&mut tx, admin.org_id, id).await?;
    let archived = archiving::archive(tx, admin.org_id, id, keys::upload_prefix, now);
    let (mut tx, stopped) = archived.await?;
    let found = project(&mut tx, admin.org_id, id).await?;
    if let Some(stopped) = stopped {
        audit::record(&mut tx, &admin.actor(), &stopped.act(id), now).await?;
    }
    tx.commit().await?;
    Ok(Json(found.into()))
}

//! The organization's own endpoints, for its administrators: projects, keys, service accounts and users.
//!
//! Paths, objects and lists are OpenAI's. What those lack stands beside them: a key's scopes and role, keys without a
//! service account, and rotation.

pub mod admin_keys;
pub mod api_keys;
pub mod fields;
pub mod keys;
pub mod members;
pub mod projects;
pub mod service_accounts;
pub mod users;

use domain::{OrgId, ProjectId};
use serde::Serialize;
use store::OrgTx;
use store::projects::ListedProject;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorCode, Thing};

/// Elements of a page, unless the client asks otherwise; never more than the second.
const LIMITS: (u32, u32) = (20, 100);

/// What is left of something.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedObject {
    id: String,
    object: &'static str,
    deleted: bool,
}

impl DeletedObject {
    pub(crate) fn of(object: &'static str, id: &impl ToString) -> Self {
        Self {
            id: id.to_string(),
            object,
            deleted: true,
        }
    }
}

/// The organization's project. Another's is not there, by row security.
async fn project(tx: &mut OrgTx, org_id: OrgId, id: ProjectId) -> Result<ListedProject, ApiError> {
    store::projects::find(tx, org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found(Thing::Project, &id.to_string()))
}

/// The project, unless it is archived: nothing is added to one that nobody is let into.
async fn open_project(
    tx: &mut OrgTx,
    org_id: OrgId,
    id: ProjectId,
) -> Result<ListedProject, ApiError> {
    let found = project(tx, org_id, id).await?;
    if found.archived_at.is_some() {
        let message = format!("The project `{id}` is archived.");
        return Err(ApiError::invalid("project_id", message).code(ErrorCode::ProjectArchived));
    }
    Ok(found)
}

fn unix(at: Option<OffsetDateTime>) -> Option<i64> {
    at.map(OffsetDateTime::unix_timestamp)
}

/// Enough of a secret to know it by.
fn redacted(prefix: &str) -> String {
    format!("{prefix}…")
}

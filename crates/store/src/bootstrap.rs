//! The first organization, project and keys of an installation.

use domain::{OrgId, ProjectId};
use time::OffsetDateTime;

use crate::api_keys::{self, KeyAct, NewApiKey, Pepper, Secret};
use crate::audit::{self, Act, Actor};
use crate::organizations::{self, Organization};
use crate::projects::{self, Project};
use crate::tx::Connection;
use crate::{OperatorTx, StoreError};

/// The slug of the organization and of the project that every installation begins with.
const SLUG: &str = "default";

/// The secrets of the first keys, which the installation keeps.
#[derive(Debug, Clone, Copy)]
pub struct Bootstrap<'a> {
    /// Opens the default project.
    pub api_key: &'a Secret,
    /// Opens the default organization.
    pub admin_key: &'a Secret,
}

/// What every installation begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrapped {
    /// The default organization.
    pub org_id: OrgId,
    /// Its default project.
    pub project_id: ProjectId,
}

/// Makes what is missing, and writes down what that was; changes nothing the second time.
pub async fn run(
    tx: &mut OperatorTx,
    pepper: &Pepper,
    secrets: &Bootstrap<'_>,
    now: OffsetDateTime,
) -> Result<Bootstrapped, StoreError> {
    // Two services that start at once would both find nothing and both make it.
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('attune bootstrap'))")
        .execute(tx.connection())
        .await?;
    let mut made = Vec::new();
    let org_id = organization(tx, &mut made, now).await?;
    let project_id = project(tx, org_id, &mut made, now).await?;
    for (secret, name, project_id) in [
        (secrets.api_key, "default", Some(project_id)),
        (secrets.admin_key, "default admin", None),
    ] {
        let key = NewApiKey {
            org_id,
            project_id,
            name: name.to_owned(),
            expires_at: None,
        };
        let key = api_keys::insert(tx, pepper, &key, secret, now).await?;
        made.extend(key.map(|key| key.act(KeyAct::Created)));
    }
    for act in &made {
        audit::record(tx, &actor(org_id), act, now).await?;
    }
    Ok(Bootstrapped { org_id, project_id })
}

/// Nobody is at a terminal: the installation does it when it starts.
fn actor(org_id: OrgId) -> Actor {
    Actor {
        org_id,
        kind: "operator".to_owned(),
        id: "start".to_owned(),
        name: "start".to_owned(),
        key_id: None,
        address: None,
        request_id: None,
    }
}

async fn organization(
    tx: &mut OperatorTx,
    made: &mut Vec<Act>,
    now: OffsetDateTime,
) -> Result<OrgId, StoreError> {
    if let Some(organization) = organizations::find_by_slug(tx, SLUG).await? {
        return Ok(organization.id);
    }
    let organization = Organization {
        id: OrgId::new(),
        name: "Default".to_owned(),
        slug: SLUG.to_owned(),
        created_at: now,
    };
    organizations::create(tx, &organization).await?;
    made.push(Act::new(
        "organization.created",
        "organization",
        organization.id,
    ));
    Ok(organization.id)
}

async fn project(
    tx: &mut OperatorTx,
    org_id: OrgId,
    made: &mut Vec<Act>,
    now: OffsetDateTime,
) -> Result<ProjectId, StoreError> {
    if let Some(project) = projects::find_by_slug(tx, org_id, SLUG).await? {
        return Ok(project.id);
    }
    let project = Project {
        id: ProjectId::new(),
        org_id,
        name: "Default".to_owned(),
        slug: SLUG.to_owned(),
        created_at: now,
    };
    projects::create(tx, &project).await?;
    let act = Act::new("project.created", "organization.project", project.id);
    made.push(act.project(project.id));
    Ok(project.id)
}

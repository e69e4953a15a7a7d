//! From a verified token to the users it stands for, and to the projects where they may do something.

use std::collections::BTreeMap;

use domain::{OrgId, ProjectId, Role};
use serde_json::json;
use store::AuthTx;
use store::audit::{self, Act};
use store::sign_in::{self, OpenProject, Seat, Subject};
use store::users::User;
use time::OffsetDateTime;

use super::oidc::{Claims, OidcConfig};
use super::{Caller, Origin};
use crate::AppState;
use crate::error::ApiError;

/// Somebody whose token was good.
pub(super) struct SignedIn {
    /// What they are, in each organization that knows them.
    pub(super) users: Vec<User>,
    /// Where they may do something, and what.
    pub(super) projects: Vec<Opened>,
    /// From when on their token is refused.
    pub(super) until: OffsetDateTime,
}

/// A project that is open to them.
pub(super) struct Opened {
    pub(super) project: OpenProject,
    pub(super) role: Role,
    pub(super) caller: Caller,
    pub(super) seat: Seat,
}

/// Roles come from two places, and the greater counts: those that were set for a user here, and those that the
/// token's groups have by the operator's settings.
pub(super) async fn sign_in(
    state: &AppState,
    settings: &OidcConfig,
    claims: &Claims,
    origin: &Origin,
) -> Result<SignedIn, ApiError> {
    let now = state.clock.now();
    let subject = Subject {
        issuer: settings.issuer.clone(),
        subject: claims.sub.clone(),
        verified_email: claims.verified_email(),
        name: claims.name.clone(),
    };
    let mut tx = state.store.auth_tx().await?;
    let linked = sign_in::link(&mut tx, &subject).await?;
    let mut users = sign_in::users(&mut tx, &subject, now).await?;
    let n_known = users.len();
    let by_groups = settings.roles(&claims.groups);
    let mut roles = by_groups.clone();
    for user in &users {
        for (project_id, role) in sign_in::roles(&mut tx, user.id).await? {
            raise(&mut roles, project_id, role);
        }
    }
    let ids: Vec<_> = roles.keys().copied().collect();
    let mut projects = Vec::new();
    for project in sign_in::open_projects(&mut tx, &ids).await? {
        let create = settings.create_users.then_some(&subject);
        let Some(user) = user_in(&mut tx, &mut users, project.org_id, create, now).await? else {
            continue;
        };
        projects.push(Opened {
            role: roles[&project.project_id],
            caller: Caller::User {
                id: user.id,
                email: user.email,
            },
            seat: Seat {
                user_id: user.id,
                project_id: project.project_id,
                by_group: by_groups.contains_key(&project.project_id),
            },
            project,
        });
    }
    let linked = linked.iter().map(|user| ("user.linked", user));
    let added = users[n_known..].iter().map(|user| ("user.added", user));
    record(&mut tx, linked.chain(added), &subject, origin, now).await?;
    tx.commit().await?;
    let until = claims.until();
    Ok(SignedIn {
        users,
        projects,
        until,
    })
}

/// Writes down that they became users of organizations, or that these know their subject now.
async fn record<'a>(
    tx: &mut AuthTx,
    done: impl Iterator<Item = (&'static str, &'a User)>,
    subject: &Subject,
    origin: &Origin,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let mut done: Vec<_> = done.collect();
    // Two who sign in at once take the locks of several chains in the same order.
    done.sort_by_key(|(_, user)| user.org_id);
    for (action, user) in done {
        let caller = Caller::User {
            id: user.id,
            email: user.email.clone(),
        };
        let details = json!({
            "role": user.role.as_str(),
            "issuer": subject.issuer,
            "subject": subject.subject,
        });
        let act = Act::new(action, "organization.user", user.id).details(details);
        audit::record(tx, &origin.actor(user.org_id, &caller), &act, now).await?;
    }
    Ok(())
}

/// Who they are in the organization, made now if that is wished and they are new to it.
async fn user_in(
    tx: &mut AuthTx,
    users: &mut Vec<User>,
    org_id: OrgId,
    create: Option<&Subject>,
    now: OffsetDateTime,
) -> Result<Option<User>, ApiError> {
    if let Some(user) = users.iter().find(|user| user.org_id == org_id) {
        return Ok(Some(user.clone()));
    }
    let Some(subject) = create else {
        return Ok(None);
    };
    let made = sign_in::create_user(tx, org_id, subject, now).await?;
    users.extend(made.clone());
    Ok(made)
}

/// Keeps the greater of two roles.
pub(super) fn raise(roles: &mut BTreeMap<ProjectId, Role>, project_id: ProjectId, role: Role) {
    let known = roles.entry(project_id).or_insert(role);
    *known = role.max(*known);
}

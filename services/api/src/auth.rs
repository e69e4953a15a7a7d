//! Who is asking, and whether they may. A handler without a [`Tenant`] cannot open a transaction on tenant data, and one
//! without an [`Administrator`] none on an organization's.
//!
//! Both ask Postgres on every request, so that what is revoked now is refused with the next one. What a route needs
//! stands in [`access`].

pub mod access;
mod caller;
pub mod oidc;
mod origin;
pub(crate) mod served;
mod sign_in;
mod standing;

pub use caller::Caller;
pub use origin::Origin;
pub(crate) use standing::Lapse;
pub use standing::{Callers, Standing};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use domain::{OrgId, OrgRole, ProjectId, Role, Scope, Scopes};
use store::api_keys::{self, Principal};
use store::audit::Actor;

use self::access::Access;
use self::sign_in::{Opened, SignedIn};
use crate::AppState;
use crate::error::{ApiError, Thing};

/// Chooses one of several projects of a user.
const PROJECT_HEADER: &str = "openai-project";
/// Chooses one of several organizations of a user.
const ORGANIZATION_HEADER: &str = "openai-organization";

/// The project in whose name the request is made, by somebody who may make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The project: whose rows are seen.
    pub project_id: ProjectId,
    /// Its organization.
    pub org_id: OrgId,
    /// The organization's part of model names.
    pub org_slug: String,
    /// Who calls.
    pub caller: Caller,
    /// From where.
    pub origin: Origin,
    /// What they are in the project.
    pub role: Role,
    /// What their key is limited to.
    pub scopes: Scopes,
    /// What lets them in, for as long as it lasts.
    pub standing: Standing,
}

/// Somebody who administers an organization: an admin key, or a user who is an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administrator {
    /// The organization.
    pub org_id: OrgId,
    /// Who calls.
    pub caller: Caller,
    /// From where.
    pub origin: Origin,
}

impl Tenant {
    /// Who calls, as the audit log writes it.
    pub fn actor(&self) -> Actor {
        self.origin.actor(self.org_id, &self.caller)
    }

    /// Refuses a key that is closed to `area`: for what goes beyond the area of its route.
    pub fn needs(&self, area: Scope) -> Result<(), ApiError> {
        if self.scopes.open_one_of(&[area]) {
            return Ok(());
        }
        Err(ApiError::missing_scope(&self.scopes, &[area]))
    }

    /// Refuses viewers and read-only keys: for a request that costs computation though its method only reads.
    pub fn may_compute(&self) -> Result<(), ApiError> {
        access::must_be(Role::Member, self.role, &self.scopes)
    }
}

impl Administrator {
    /// Who calls, as the audit log writes it.
    pub fn actor(&self) -> Actor {
        self.origin.actor(self.org_id, &self.caller)
    }
}

impl FromRequestParts<AppState> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let access = Access::of_request(parts)?;
        let origin = Origin::of(parts, state.trusts_proxy);
        let tenant = match Identity::of(&parts.headers, state, &origin).await? {
            Identity::Key(key) => of_key(key, origin)?,
            Identity::User(user) => of_user(user, origin, &parts.headers)?,
        };
        access.admit(tenant.role, &tenant.scopes)?;
        state
            .throttle
            .admit(&state.store, tenant.project_id)
            .await?;
        Ok(tenant)
    }
}

impl FromRequestParts<AppState> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let origin = Origin::of(parts, state.trusts_proxy);
        if Access::of_request(parts)? != Access::Organization {
            return Err(ApiError::internal(format!(
                "`{}` is no route for administrators by auth/access.rs",
                parts.uri.path()
            )));
        }
        match Identity::of(&parts.headers, state, &origin).await? {
            Identity::Key(key) if key.project_id.is_none() => Ok(Self {
                org_id: served::noted(key.org_id),
                caller: caller(&key),
                origin,
            }),
            Identity::Key(_) => Err(ApiError::admin_key_needed()),
            Identity::User(user) => administrator(user, origin, &parts.headers),
        }
    }
}

/// What a request's credentials prove.
enum Identity {
    Key(Principal),
    User(SignedIn),
}

impl Identity {
    async fn of(headers: &HeaderMap, state: &AppState, origin: &Origin) -> Result<Self, ApiError> {
        let token = bearer(headers).ok_or_else(ApiError::missing_key)?;
        if let Some(oidc) = &state.oidc
            && oidc::looks_like_token(token)
        {
            let claims = oidc.verify(token, state.clock.now()).await?;
            return sign_in::sign_in(state, oidc.settings(), &claims, origin)
                .await
                .map(Self::User);
        }
        let mut tx = state.store.auth_tx().await?;
        let principal =
            api_keys::authenticate(&mut tx, &state.pepper, token, state.clock.now()).await?;
        tx.commit().await?;
        principal.map(Self::Key).ok_or_else(ApiError::wrong_key)
    }
}

fn caller(key: &Principal) -> Caller {
    Caller::Key {
        id: key.key_id,
        name: key.key_name.clone(),
        service_account: key.service_account,
    }
}

fn of_key(key: Principal, origin: Origin) -> Result<Tenant, ApiError> {
    Ok(Tenant {
        project_id: key.project_id.ok_or_else(ApiError::admin_key)?,
        org_id: served::noted(key.org_id),
        caller: caller(&key),
        origin,
        org_slug: key.org_slug,
        role: key.role,
        scopes: key.scopes,
        standing: Standing::Key(key.key_id),
    })
}

/// The project that the header names, or the one that is meant without it.
fn of_user(user: SignedIn, origin: Origin, headers: &HeaderMap) -> Result<Tenant, ApiError> {
    let until = user.until;
    let chosen = match named(headers, PROJECT_HEADER) {
        Some(name) => {
            let missing = || ApiError::not_found(Thing::Project, name).param("OpenAI-Project");
            let mut projects = user.projects.into_iter();
            projects
                .find(|each| each.project.project_id.to_string() == name)
                .ok_or_else(missing)
        }
        None => only_project(user),
    }?;
    Ok(Tenant {
        project_id: chosen.project.project_id,
        org_id: served::noted(chosen.project.org_id),
        org_slug: chosen.project.org_slug,
        caller: chosen.caller,
        origin,
        role: chosen.role,
        scopes: Scopes::default(),
        standing: Standing::User {
            seat: chosen.seat,
            until,
        },
    })
}

/// The only project there is in the organization that has known the user longest: that somebody else's organization
/// adds them must not change what their requests mean.
fn only_project(user: SignedIn) -> Result<Opened, ApiError> {
    let mut projects = user.projects;
    let is_open = |org_id| projects.iter().any(|each| each.project.org_id == org_id);
    let mut known = user.users.iter().map(|user| user.org_id);
    let home = known.find(|org_id| is_open(*org_id));
    projects.retain(|each| Some(each.project.org_id) == home);
    if projects.len() > 1 {
        return Err(ApiError::several_projects());
    }
    projects.pop().ok_or_else(ApiError::no_project)
}

/// The organization that the header names, or the one that has known the user longest, of those that they own.
fn administrator(
    user: SignedIn,
    origin: Origin,
    headers: &HeaderMap,
) -> Result<Administrator, ApiError> {
    let name = named(headers, ORGANIZATION_HEADER);
    let owned = user.users.into_iter().find(|user| {
        user.role == OrgRole::Owner && name.is_none_or(|name| user.org_id.to_string() == name)
    });
    let user = owned.ok_or_else(ApiError::admin_key_needed)?;
    Ok(Administrator {
        org_id: served::noted(user.org_id),
        caller: Caller::User {
            id: user.id,
            email: user.email,
        },
        origin,
    })
}

fn named<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then_some(value)
}

/// The token of `Authorization: Bearer TOKEN`. The scheme's case does not matter (RFC 9110).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .trim()
        .split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_a_key() {
        let read = |value: &'static str| {
            bearer(&HeaderMap::from_iter([(
                AUTHORIZATION,
                value.parse().unwrap(),
            )]))
            .map(str::to_owned)
        };
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("bearer  abc").as_deref(), Some("abc"));
        assert_eq!(read("Basic abc"), None);
        assert_eq!(read("Bearer "), None);
        assert_eq!(read("abc"), None);
    }
}

//! What each route needs of who calls it. The one place that says so.
//!
//! A route belongs to a family by its path, and to readers or writers by its method. A path of no family is refused to
//! everybody, and a test names it, so that a new family has to be placed here before it can be used. What a route needs
//! besides, because of what is asked of it, its handler asks of the [`Tenant`](super::Tenant).

use axum::extract::MatchedPath;
use axum::http::Method;
use axum::http::request::Parts;
use domain::{Role, Scope, Scopes};

use crate::error::ApiError;

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: it tells no tenant's secret.
    Public,
    /// A key or user of a project, open to one of these areas.
    Project {
        /// The areas.
        areas: &'static [Scope],
        /// What one must be at least. Where that is more than a viewer, the route changes something or costs computation,
        /// and read-only keys may not use it.
        least: Role,
    },
    /// An administrator of the organization.
    Organization,
}

/// The families, by how their paths begin. The longest beginning decides.
const FAMILIES: &[(&str, Family)] = &[
    ("/healthz", Family::Public),
    ("/readyz", Family::Public),
    ("/metrics", Family::Public),
    ("/docs", Family::Public),
    ("/openapi.", Family::Public),
    ("/v1/files", Family::Project(&[Scope::Files])),
    ("/v1/uploads", Family::Project(&[Scope::Files])),
    ("/v1/batches", Family::Project(&[Scope::Inference])),
    ("/v1/chat", Family::Project(&[Scope::Inference])),
    ("/v1/models", Family::Models),
    ("/v1/fine_tuning", Family::Project(&[Scope::Jobs])),
    ("/v1/webhook", Family::Project(&[Scope::Jobs])),
    ("/v1/fine_tuning/checkpoints", Family::Organization),
    ("/v1/organization", Family::Organization),
];

#[derive(Debug, Clone, Copy)]
enum Family {
    Public,
    Project(&'static [Scope]),
    /// Whoever asks models may look at them. To delete one takes the area that made it, and an owner: nothing brings it
    /// back.
    Models,
    Organization,
}

impl Access {
    /// What the route needs; none if its path is of no family.
    pub fn of(method: &Method, path: &str) -> Option<Self> {
        let (_, family) = FAMILIES
            .iter()
            .filter(|(beginning, _)| path.starts_with(beginning))
            .max_by_key(|(beginning, _)| beginning.len())?;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let (areas, least): (&[Scope], _) = match *family {
            Family::Public => return Some(Self::Public),
            Family::Organization => return Some(Self::Organization),
            Family::Project(areas) if reads => (areas, Role::Viewer),
            Family::Project(areas) => (areas, Role::Member),
            Family::Models if reads => (&[Scope::Jobs, Scope::Inference], Role::Viewer),
            Family::Models => (&[Scope::Jobs], Role::Owner),
        };
        Some(Self::Project { areas, least })
    }

    /// What the route of a request needs.
    pub(super) fn of_request(parts: &Parts) -> Result<Self, ApiError> {
        let path = parts.extensions.get::<MatchedPath>();
        let path = path.map_or(parts.uri.path(), MatchedPath::as_str);
        Self::of(&parts.method, path)
            .ok_or_else(|| ApiError::internal(format!("no family of routes has the path `{path}`")))
    }

    /// Refuses who may not use the route: with these rights in a project.
    pub(super) fn admit(self, role: Role, scopes: &Scopes) -> Result<(), ApiError> {
        let (areas, least) = match self {
            Self::Public => return Ok(()),
            Self::Organization => return Err(ApiError::admin_key_needed()),
            Self::Project { areas, least } => (areas, least),
        };
        if !scopes.open_one_of(areas) {
            return Err(ApiError::missing_scope(scopes, areas));
        }
        must_be(least, role, scopes)
    }
}

/// Refuses who is less than `least`, and read-only keys where that is more than a viewer.
pub(super) fn must_be(least: Role, role: Role, scopes: &Scopes) -> Result<(), ApiError> {
    if least.may_write() && scopes.is_read_only() {
        return Err(ApiError::read_only_key());
    }
    if role >= least {
        return Ok(());
    }
    Err(if role.may_write() {
        ApiError::no_owner()
    } else {
        ApiError::viewer()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::ROUTES;

    #[test]
    fn every_route_says_what_it_needs() {
        for route in ROUTES {
            assert!(
                Access::of(&route.method, route.path).is_some(),
                "{} {} is of no family in auth/access.rs",
                route.method,
                route.path
            );
        }
    }

    #[test]
    fn a_path_of_no_family_needs_what_nobody_has() {
        assert_eq!(Access::of(&Method::GET, "/v1/secrets"), None);
        assert_eq!(Access::of(&Method::GET, "/"), None);
    }

    #[test]
    fn the_longest_beginning_decides() {
        let path = "/v1/fine_tuning/checkpoints/{model}/permissions";
        assert_eq!(Access::of(&Method::GET, path), Some(Access::Organization));
        let jobs = Access::of(&Method::POST, "/v1/fine_tuning/jobs");
        let least = Role::Member;
        assert!(matches!(jobs, Some(Access::Project { least: found, .. }) if found == least));
    }

    #[test]
    fn a_reader_reads_and_does_not_write() {
        let [read, write] = [Method::GET, Method::DELETE]
            .map(|method| Access::of(&method, "/v1/files/{id}").expect("a family"));
        let reader = Scopes::from_iter([Scope::ReadOnly]);
        for (role, scopes) in [(Role::Viewer, Scopes::default()), (Role::Owner, reader)] {
            assert!(read.admit(role, &scopes).is_ok());
            assert!(write.admit(role, &scopes).is_err());
        }
        assert!(write.admit(Role::Member, &Scopes::default()).is_ok());
        let model = Access::of(&Method::DELETE, "/v1/models/{*model}").expect("a family");
        assert!(model.admit(Role::Member, &Scopes::default()).is_err());
        assert!(model.admit(Role::Owner, &Scopes::default()).is_ok());
        let chats = Scopes::from_iter([Scope::Inference]);
        assert!(read.admit(Role::Owner, &chats).is_err());
    }
}

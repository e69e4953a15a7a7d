//! Who is asking. A handler without a [`Tenant`] cannot open a transaction on tenant data.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use domain::{OrgId, ProjectId};
use store::api_keys;

use crate::AppState;
use crate::error::ApiError;

/// The project whose API key came with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The project: whose rows are seen.
    pub project_id: ProjectId,
    /// Its organization.
    pub org_id: OrgId,
    /// The organization's part of model names.
    pub org_slug: String,
}

impl FromRequestParts<AppState> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let secret = bearer(&parts.headers).ok_or_else(ApiError::missing_key)?;
        let mut tx = state.store.auth_tx().await?;
        let principal =
            api_keys::authenticate(&mut tx, &state.pepper, secret, state.clock.now()).await?;
        tx.commit().await?;
        let principal = principal.ok_or_else(ApiError::wrong_key)?;
        let project_id = principal.project_id.ok_or_else(ApiError::admin_key)?;
        Ok(Self {
            project_id,
            org_id: principal.org_id,
            org_slug: principal.org_slug,
        })
    }
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

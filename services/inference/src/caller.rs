//! Who asks: the API, proving itself with the internal token, for a project it names.
//!
//! The API has authenticated the client. A chat handler without an [`InternalCaller`] cannot reach tenant data.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use domain::ProjectId;
use sha2::{Digest, Sha256};

use crate::error::ChatError;
use crate::request_id::RequestId;
use crate::server::AppState;

/// The header that names the project.
pub const PROJECT_HEADER: &str = "x-attune-project";

/// The token every call must carry. Only its digest is kept.
#[derive(Clone)]
pub(crate) struct InternalToken([u8; 32]);

impl InternalToken {
    /// Keeps the token's digest.
    pub(crate) fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether the header carries the token. Takes the same time for every wrong one.
    fn admits(&self, header: Option<&HeaderValue>) -> bool {
        let given = header
            .and_then(|value| value.as_bytes().split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let Some((_, given)) = given else {
            return false;
        };
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0
            .iter()
            .zip(given)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
    }
}

/// The API, on behalf of a project.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InternalCaller {
    /// The tenant.
    pub(crate) project_id: ProjectId,
}

impl InternalCaller {
    fn from_headers(token: &InternalToken, headers: &HeaderMap) -> Result<Self, ChatError> {
        if !token.admits(headers.get(AUTHORIZATION)) {
            return Err(ChatError::Unauthorized);
        }
        let project = headers
            .get(PROJECT_HEADER)
            .and_then(|value| value.to_str().ok());
        let project_id = project.and_then(|text| text.parse().ok());
        project_id
            .map(|project_id| Self { project_id })
            .ok_or_else(|| ChatError::Invalid {
                message: format!("The header `{PROJECT_HEADER}` must be a project's id."),
                param: None,
                code: None,
            })
    }
}

impl FromRequestParts<AppState> for InternalCaller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let request_id = RequestId::of(&parts.extensions);
        Self::from_headers(&state.internal_token, &parts.headers)
            .map_err(|error| error.respond(request_id.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str, project: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        headers.insert(PROJECT_HEADER, project.parse().unwrap());
        headers
    }

    #[test]
    fn only_the_token_opens() {
        let (token, project_id) = (InternalToken::new("secret"), ProjectId::new());
        let ask = |authorization| {
            InternalCaller::from_headers(&token, &headers(authorization, &project_id.to_string()))
        };
        assert_eq!(ask("Bearer secret").unwrap().project_id, project_id);
        assert_eq!(ask("bearer secret").unwrap().project_id, project_id);
        for wrong in [
            "Bearer Secret",
            "Bearer secret2",
            "Bearer ",
            "secret",
            "Basic secret",
            "",
        ] {
            assert!(
                matches!(ask(wrong), Err(ChatError::Unauthorized)),
                "{wrong}"
            );
        }
        let nothing = InternalCaller::from_headers(&token, &HeaderMap::new());
        assert!(matches!(nothing, Err(ChatError::Unauthorized)));
    }

    #[test]
    fn a_call_without_a_project_is_refused() {
        let token = InternalToken::new("secret");
        for project in ["", "proj_1", "file-0190"] {
            let refused = InternalCaller::from_headers(&token, &headers("Bearer secret", project));
            assert!(
                matches!(refused, Err(ChatError::Invalid { .. })),
                "{project}"
            );
        }
    }
}

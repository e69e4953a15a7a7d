//! A model's name in a path.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::error::{ApiError, Thing};

/// The name of a model, decoded once. What cannot be a name (broken UTF-8, a NUL character) names no model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = parts
            .uri
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) if !name.contains('\0') => Ok(Self(name)),
            _ => Err(ApiError::not_found(Thing::Model, &raw)),
        }
    }
}

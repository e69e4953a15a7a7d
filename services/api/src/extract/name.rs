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

/// What of a model a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelPart {
    /// The model.
    Itself,
    /// `…/limits`
    Limits,
    /// `…/download`
    Download,
}

impl ModelPart {
    const WORDS: [(&str, Self); 2] = [("/limits", Self::Limits), ("/download", Self::Download)];
}

/// The name of a model in a path that may go on after it.
///
/// A name may hold slashes, so the path alone does not say where it ends. It ends before a last segment that is the word
/// of a part; a name that itself ends in such a word is written with `%2F` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPart(pub String, pub ModelPart);

impl<S: Send + Sync> FromRequestParts<S> for PathPart {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let PathName(whole) = PathName::from_request_parts(parts, state).await?;
        for (word, part) in ModelPart::WORDS {
            let is_segment = parts.uri.path().ends_with(word);
            if let Some(name) = whole.strip_suffix(word).filter(|_| is_segment) {
                return Ok(Self(name.to_owned(), part));
            }
        }
        Ok(Self(whole, ModelPart::Itself))
    }
}

//! The id in a path.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use domain::{ApiKeyId, BatchId, FileId, JobId, ProjectId, ServiceAccountId, UploadId, UserId};

use crate::error::{ApiError, Thing};

/// A kind of id that stands in a path.
pub trait Identifies: FromStr {
    /// What it identifies.
    const THING: Thing;
}

impl Identifies for FileId {
    const THING: Thing = Thing::File;
}

impl Identifies for JobId {
    const THING: Thing = Thing::Job;
}

impl Identifies for UploadId {
    const THING: Thing = Thing::Upload;
}

impl Identifies for BatchId {
    const THING: Thing = Thing::Batch;
}

impl Identifies for ProjectId {
    const THING: Thing = Thing::Project;
}

impl Identifies for ApiKeyId {
    const THING: Thing = Thing::ApiKey;
}

impl Identifies for ServiceAccountId {
    const THING: Thing = Thing::ServiceAccount;
}

impl Identifies for UserId {
    const THING: Thing = Thing::User;
}

/// The id at the end or in the middle of a path. What is no id cannot exist, so it is a 404, like an id that
/// nothing has.
#[derive(Debug, Clone, Copy)]
pub struct PathId<T>(pub T);

impl<T: Identifies, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // Broken UTF-8 is one more way of being no id.
        let path = Path::<String>::from_request_parts(parts, state).await;
        let text = path.map_or_else(|_| String::new(), |Path(text)| text);
        text.parse()
            .map(Self)
            .map_err(|_| ApiError::not_found(T::THING, &text))
    }
}

/// Two ids in a path, the second a thing within the first.
#[derive(Debug, Clone, Copy)]
pub struct PathIds<A, B>(pub A, pub B);

impl<A: Identifies, B: Identifies, S: Send + Sync> FromRequestParts<S> for PathIds<A, B> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let (outer, inner) = path.map_or_else(|_| Default::default(), |Path(both)| both);
        let outer_id = outer.parse();
        let inner_id = inner.parse();
        Ok(Self(
            outer_id.map_err(|_| ApiError::not_found(A::THING, &outer))?,
            inner_id.map_err(|_| ApiError::not_found(B::THING, &inner))?,
        ))
    }
}

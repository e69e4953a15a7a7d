//! The query of a request, read parameter by parameter, so that an error can name the one at fault.

use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::error::ApiError;

/// The decoded pairs of a query. Both `+` and `%20` are spaces, as clients differ in which they send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::invalid_request(rejection.body_text()))?;
        // Postgres stores none, so no row can be meant.
        if pairs
            .iter()
            .any(|(key, value)| key.contains('\0') || value.contains('\0'))
        {
            return Err(ApiError::invalid_request(
                "The query holds a NUL character.",
            ));
        }
        Ok(Self(pairs))
    }
}

impl Params {
    /// The last value of a parameter, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|value| !value.is_empty())
    }

    /// The last value of a parameter. An empty one is a value, and no number or word of a list.
    pub fn given(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().rfind(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    }

    /// How many elements a page has: `default` unless asked, never more than `max`.
    ///
    /// # Errors
    /// The parameter is no whole number.
    pub fn limit(&self, default: u32, max: u32) -> Result<u32, ApiError> {
        let limit = self.whole("limit", default.into(), 1..=max.into())?;
        Ok(u32::try_from(limit).unwrap_or(max))
    }

    /// A number, moved into `range`.
    ///
    /// # Errors
    /// The parameter is no whole number.
    pub fn whole(
        &self,
        name: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ApiError> {
        let Some(text) = self.given(name) else {
            return Ok(default);
        };
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) || digits.is_empty() {
            let message = format!("`{name}` must be a whole number.");
            return Err(ApiError::invalid(name, message));
        }
        // A number of any length is a number; what does not fit is far beyond the range.
        let (min, max) = range.into_inner();
        let beyond = if text.starts_with('-') { min } else { max };
        Ok(text.parse().unwrap_or(beyond).clamp(min, max))
    }

    /// The id of the last element of the page before.
    ///
    /// # Errors
    /// The parameter is no id of the right kind.
    pub fn after<T: FromStr>(&self) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get("after") else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| unknown_cursor())
    }

    /// The values of a list parameter: `name[]=value`, or `name=value`, any number of times.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |(key, value)| {
            let key = key.strip_suffix("[]").unwrap_or(key);
            (key == name && !value.is_empty()).then_some(value.as_str())
        })
    }

    /// The pairs of a map parameter: `name[key]=value`. An empty value is a value.
    pub fn map<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(key, value)| {
            let key = key
                .strip_prefix(name)?
                .strip_prefix('[')?
                .strip_suffix(']')?;
            Some((key, value.as_str()))
        })
    }
}

/// The error for a cursor that names nothing in the list.
pub fn unknown_cursor() -> ApiError {
    ApiError::invalid(
        "after",
        "`after` must be the id of the last element of the page before.",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn params(query: &str) -> Params {
        let request = Request::get(format!("/?{query}")).body(()).unwrap();
        Params::from_request_parts(&mut request.into_parts().0, &())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_map_is_read_as_both_clients_write_it() {
        for query in [
            "metadata%5Bteam%5D=a+b",
            "metadata%5Bteam%5D=a%20b",
            "metadata[team]=a+b",
        ] {
            let params = params(query).await;
            assert_eq!(
                params.map("metadata").collect::<Vec<_>>(),
                [("team", "a b")]
            );
        }
    }

    #[tokio::test]
    async fn a_limit_is_clamped_and_a_word_is_refused() {
        assert_eq!(params("limit=0").await.limit(20, 100).unwrap(), 1);
        assert_eq!(
            params("limit=99999999999").await.limit(20, 100).unwrap(),
            100
        );
        assert_eq!(params("").await.limit(20, 100).unwrap(), 20);
        assert_eq!(params("limit=-3").await.limit(20, 100).unwrap(), 1);
        for wrong in ["", "ten", "-", "1.5", "1e2"] {
            let params = params(&format!("limit={wrong}")).await;
            assert!(params.limit(20, 100).is_err(), "{wrong}");
        }
    }
}

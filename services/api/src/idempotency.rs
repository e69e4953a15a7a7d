//! A request that makes something takes effect once, however often it arrives.
//!
//! A client that sends `Idempotency-Key` gets the first answer again for a day. OpenAI's own clients send none and
//! retry in silence, but say so in `x-stainless-retry-count`: such a retry gets the answer that a try before it, with
//! the same path and body, was given within the last minutes.
//!
//! A handler takes [`Once`], opens it in its transaction, and lets it keep the answer before it commits. Only success is
//! kept: what was refused made nothing, and may be tried again under its key. The answer is stored, so one that shows a
//! secret is not: its repetition is told [what was made, and the way out](Pending::keep_without_secret).

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use store::TenantTx;
use store::idempotency::{self, Answer, Mark, Request, Standing};
use time::OffsetDateTime;
use utoipa::IntoParams;

use crate::error::ApiError;
use crate::error::answer::SHOULD_RETRY;

/// The header in which a client names its request.
const KEY_HEADER: &str = "idempotency-key";
/// As the documentation writes it.
pub(crate) const DOCUMENTED_HEADER: &str = "Idempotency-Key";
/// The header in which OpenAI's clients count their retries, from 0.
const RETRY_HEADER: &str = "x-stainless-retry-count";
/// Set on an answer that was given before.
const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotent-replayed");
const MAX_KEY_CHARS: usize = 255;

/// The header, as the documentation shows it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only described: `mark` reads it")]
pub(crate) struct OnceHeader {
    /// A name for this request, of your choice. Sent again within a day, it makes nothing new and gets the same answer, or,
    /// where that had a secret, a 409 that names what was made.
    #[param(rename = "Idempotency-Key", max_length = 255)]
    key: Option<String>,
}

/// How a request says that it may be a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    route: String,
    path: String,
    /// None for a client that neither names its requests nor counts its retries.
    mark: Option<Mark>,
}

/// What a handler is to do.
#[derive(Debug)]
pub enum Opened {
    /// Nothing but to answer this.
    Answered(Response),
    /// Its work, and then [`Pending::keep`].
    New(Pending),
}

/// A request under way. No other with its mark runs beside it until the transaction ends.
#[derive(Debug)]
pub struct Pending {
    request: Option<Request>,
    now: OffsetDateTime,
}

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let path = parts.uri.path().to_owned();
        let pattern = parts.extensions.get::<MatchedPath>();
        let pattern = pattern.map_or(path.as_str(), MatchedPath::as_str);
        Ok(Self {
            route: format!("{} {pattern}", parts.method),
            mark: mark(&parts.headers)?,
            path,
        })
    }
}

impl Once {
    /// Looks whether the request was carried out before. `said` is all that it asks for.
    ///
    /// # Errors
    /// The key was used for another request (422), or the request is being carried out right now (409).
    pub async fn open(
        self,
        tx: &mut TenantTx,
        said: &Value,
        now: OffsetDateTime,
    ) -> Result<Opened, ApiError> {
        let fingerprint = self.fingerprint(said);
        let Some(mark) = self.mark else {
            return Ok(Opened::New(Pending { request: None, now }));
        };
        let request = Request {
            route: self.route,
            mark,
            fingerprint,
        };
        match idempotency::open(tx, &request, now).await? {
            Standing::New => Ok(Opened::New(Pending {
                request: Some(request),
                now,
            })),
            Standing::Answered(answer) => Ok(Opened::Answered(replayed(answer)?)),
            Standing::OtherRequest => Err(ApiError::idempotency_key_reused()),
            Standing::InFlight => Err(ApiError::request_in_flight()),
        }
    }

    /// The path too: the same body asked of another object is another request.
    fn fingerprint(&self, said: &Value) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(&self.path);
        hash.update([0]);
        hash.update(said.to_string());
        hash.finalize().into()
    }
}

impl Pending {
    /// The answer, kept for a repetition. Commit next.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep(
        self,
        tx: &mut TenantTx,
        view: &impl Serialize,
    ) -> Result<Response, ApiError> {
        let answer = answer(StatusCode::OK, view)?;
        self.store(tx, &answer).await?;
        shown(answer)
    }

    /// The answer with its secret. What is kept for a repetition is `again`, a conflict. Commit next.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep_without_secret(
        self,
        tx: &mut TenantTx,
        view: &impl Serialize,
        again: ApiError,
    ) -> Result<Response, ApiError> {
        let told = answer(StatusCode::CONFLICT, &again.into_body())?;
        self.store(tx, &told).await?;
        shown(answer(StatusCode::OK, view)?)
    }

    async fn store(self, tx: &mut TenantTx, answer: &Answer) -> Result<(), ApiError> {
        if let Some(request) = &self.request {
            idempotency::keep(tx, request, answer, self.now).await?;
        }
        Ok(())
    }
}

fn answer(status: StatusCode, body: &impl Serialize) -> Result<Answer, ApiError> {
    Ok(Answer {
        status: status.as_u16(),
        body: serde_json::to_vec(body).map_err(ApiError::internal)?,
    })
}

fn mark(headers: &HeaderMap) -> Result<Option<Mark>, ApiError> {
    if let Some(value) = headers.get(KEY_HEADER) {
        return key(value).map(|key| Some(Mark::Key(key)));
    }
    // Telemetry, to a client: what cannot be read is not there.
    let retries: Option<u32> = headers
        .get(RETRY_HEADER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Ok(retries.map(|n| if n == 0 { Mark::First } else { Mark::Retry }))
}

fn key(value: &HeaderValue) -> Result<String, ApiError> {
    value
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_KEY_CHARS).contains(&key.len()) && !key.contains('\t'))
        .map(str::to_owned)
        .ok_or_else(|| {
            ApiError::invalid(
                "Idempotency-Key",
                format!("The header `Idempotency-Key` must have 1 to {MAX_KEY_CHARS} ASCII characters, such as a UUID."),
            )
        })
}

fn replayed(answer: Answer) -> Result<Response, ApiError> {
    let mut response = shown(answer)?;
    let is_refused = response.status().is_client_error();
    let headers = response.headers_mut();
    headers.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    if is_refused {
        // Clients take a 409 for a lock.
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    Ok(response)
}

fn shown(answer: Answer) -> Result<Response, ApiError> {
    let status = StatusCode::from_u16(answer.status).map_err(ApiError::internal)?;
    let kind = HeaderValue::from_static("application/json");
    Ok((status, [(CONTENT_TYPE, kind)], answer.body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Result<Option<Mark>, ApiError> {
        let pairs = headers.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a header's value");
            (HeaderName::from_static(name), value)
        });
        mark(&pairs.collect())
    }

    #[test]
    fn a_key_wins_over_the_count_of_retries() {
        let both = [(KEY_HEADER, "k"), (RETRY_HEADER, "1")];
        assert_eq!(read(&both).unwrap(), Some(Mark::Key("k".to_owned())));
        assert_eq!(read(&both[1..]).unwrap(), Some(Mark::Retry));
        assert_eq!(read(&[(RETRY_HEADER, "0")]).unwrap(), Some(Mark::First));
        assert_eq!(read(&[(RETRY_HEADER, "many")]).unwrap(), None);
        assert_eq!(read(&[]).unwrap(), None);
    }

    #[test]
    fn a_key_is_neither_empty_nor_long_nor_outside_ascii() {
        for value in ["", "a\tb", "schlüssel", &"x".repeat(MAX_KEY_CHARS + 1)] {
            assert!(read(&[(KEY_HEADER, value)]).is_err(), "{value}");
        }
        assert!(read(&[(KEY_HEADER, &"x".repeat(MAX_KEY_CHARS))]).is_ok());
    }
}

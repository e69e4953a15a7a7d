//! The issuer's public keys: fetched when they are first needed, kept for a while, fetched again when a token names one
//! that is new.
//!
//! Tokens come from anybody, so what they can make us do is bounded: one fetch in ten seconds, whatever they name. A
//! fetch that fails leaves the known keys good until they are an hour old; then there are none.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration as StdDuration;

use futures::StreamExt as _;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;

use crate::error::ApiError;

/// Older keys are fetched anew. An issuer that takes a key out expects it to be gone within about this time.
const FRESH: Duration = Duration::minutes(10);
/// Older keys are not used.
const USABLE: Duration = Duration::hours(1);
/// Between two fetches, the least.
const PAUSE: Duration = Duration::seconds(10);
/// For one fetch.
const TIMEOUT: StdDuration = StdDuration::from_secs(5);
/// An issuer has a handful of keys.
const MAX_KEYS: usize = 64;
const MAX_DOCUMENT_BYTES: usize = 256 << 10;

/// A public key and the one algorithm that it is for.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

pub(super) struct Keys {
    http: reqwest::Client,
    issuer: String,
    known: RwLock<Known>,
    /// When a fetch was last tried. Held while one runs: there is one at a time.
    tried_at: Mutex<Option<OffsetDateTime>>,
}

#[derive(Default, Clone)]
struct Known {
    keys: Arc<HashMap<String, Arc<Key>>>,
    fetched_at: Option<OffsetDateTime>,
}

impl Known {
    fn is_younger_than(&self, age: Duration, now: OffsetDateTime) -> bool {
        self.fetched_at.is_some_and(|at| now - at < age)
    }
}

/// Why the keys could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("`{url}` could not be fetched")]
    Http {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("`{url}` answered more than {MAX_DOCUMENT_BYTES} bytes")]
    TooLong { url: String },
    #[error("`{url}` answered something that cannot be read")]
    Unreadable {
        url: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the discovery document is for the issuer `{found}`, not for `{wanted}`")]
    OtherIssuer { found: String, wanted: String },
    #[error("the keys are at `{url}`, which is not encrypted though the issuer is")]
    Unencrypted { url: String },
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    pub(super) fn new(issuer: &str) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            http,
            issuer: issuer.to_owned(),
            known: RwLock::default(),
            tried_at: Mutex::default(),
        })
    }

    /// The key with this id; none if the issuer does not have it, as far as we may ask.
    ///
    /// # Errors
    /// There are no keys that could be used, and none could be fetched.
    pub(super) async fn find(
        &self,
        kid: &str,
        now: OffsetDateTime,
    ) -> Result<Option<Arc<Key>>, ApiError> {
        let known = self.known();
        if known.is_younger_than(FRESH, now)
            && let Some(key) = known.keys.get(kid)
        {
            return Ok(Some(key.clone()));
        }
        let failure = self.refresh(now).await.err();
        let known = self.known();
        if known.is_younger_than(USABLE, now) {
            return Ok(known.keys.get(kid).cloned());
        }
        Err(ApiError::unavailable(failure.unwrap_or_else(|| {
            "there are no usable keys of the identity provider, and it was asked just now".into()
        })))
    }

    /// Fetches the keys, unless that was tried just now. Who comes while it runs waits for what it brings.
    async fn refresh(
        &self,
        now: OffsetDateTime,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut tried_at = self.tried_at.lock().await;
        if tried_at.is_some_and(|at| now - at < PAUSE) {
            return Ok(());
        }
        *tried_at = Some(now);
        match self.fetch().await {
            Ok(keys) => {
                let known = Known {
                    keys: Arc::new(keys),
                    fetched_at: Some(now),
                };
                *self.known.write().expect("no holder panics") = known;
                Ok(())
            }
            Err(error) => {
                let chain = domain::failure::error_chain(&error);
                tracing::warn!(error = %chain, "The identity provider's keys could not be fetched: {chain}");
                Err(error.into())
            }
        }
    }

    async fn fetch(&self) -> Result<HashMap<String, Arc<Key>>, FetchError> {
        let base = self.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let discovery: Discovery = self.document(&url).await?;
        if discovery.issuer != self.issuer {
            return Err(FetchError::OtherIssuer {
                found: discovery.issuer,
                wanted: self.issuer.clone(),
            });
        }
        if self.issuer.starts_with("https://") && !discovery.jwks_uri.starts_with("https://") {
            return Err(FetchError::Unencrypted {
                url: discovery.jwks_uri,
            });
        }
        let set: KeySet = self.document(&discovery.jwks_uri).await?;
        Ok(set
            .keys
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(usable)
            .collect())
    }

    async fn document<T: DeserializeOwned>(&self, url: &str) -> Result<T, FetchError> {
        let http = |source| FetchError::Http {
            url: url.to_owned(),
            source,
        };
        let answer = self.http.get(url).send().await.map_err(http)?;
        let mut chunks = answer.error_for_status().map_err(http)?.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(http)?);
            if bytes.len() > MAX_DOCUMENT_BYTES {
                return Err(FetchError::TooLong {
                    url: url.to_owned(),
                });
            }
        }
        serde_json::from_slice(&bytes).map_err(|source| FetchError::Unreadable {
            url: url.to_owned(),
            source,
        })
    }

    fn known(&self) -> Known {
        self.known.read().expect("no holder panics").clone()
    }
}

/// A key that signs by RS256 or ES256. An issuer may publish others; they are not for us.
fn usable(value: serde_json::Value) -> Option<(String, Arc<Key>)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    let signs = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let fits = jwk.common.key_algorithm.is_none_or(|alg| alg == named);
    if !signs || !fits {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    let kid = jwk.common.key_id?;
    Some((
        kid,
        Arc::new(Key {
            algorithm,
            decoding,
        }),
    ))
}

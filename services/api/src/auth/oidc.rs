//! Bearer tokens of an OpenID Connect issuer: JSON Web Tokens, verified against the keys that the issuer publishes.
//!
//! The algorithm is that of the key, RS256 or ES256, and never what the token asks for: a token that is signed with
//! nothing, or with a public key taken for a secret, is refused before any key is looked at.

mod keys;
mod settings;

pub use settings::{Grant, OidcConfig};

use std::sync::Arc;

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use time::{OffsetDateTime, PrimitiveDateTime};

use self::keys::Keys;
use crate::error::ApiError;

/// By how much the issuer's clock may differ from ours.
const LEEWAY_SECS: f64 = 30.0;
/// No issuer's tokens are longer; a header has no room for more.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Groups of one token. More is not read: nobody maps as many.
const MAX_GROUPS: usize = 1_000;

/// Verifies tokens of one issuer. Cloning shares its keys.
#[derive(Clone)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    settings: OidcConfig,
    keys: Keys,
}

/// What a good token says.
#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    /// Whom the issuer means.
    pub sub: String,
    exp: f64,
    nbf: Option<f64>,
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
    /// Their name.
    pub name: Option<String>,
    /// Groups, whatever the claim is called.
    #[serde(skip)]
    pub groups: Vec<String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Claims {
    /// The email, if the issuer vouches for it. One that it does not vouch for could be anybody's.
    pub fn verified_email(&self) -> Option<String> {
        self.email.clone().filter(|_| self.email_verified)
    }

    /// From when on the token is refused.
    pub fn until(&self) -> OffsetDateTime {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is beyond an i64 becomes its greatest, and is beyond all dates"
        )]
        let seconds = (self.exp + LEEWAY_SECS).ceil() as i64;
        OffsetDateTime::from_unix_timestamp(seconds)
            .unwrap_or_else(|_| PrimitiveDateTime::MAX.assume_utc())
    }
}

/// Whether this is a token rather than a key of ours: a JSON object in base64, and two dots.
pub fn looks_like_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Oidc {
    /// A verifier. Nothing is fetched yet, so that the service starts while the issuer is away.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(settings: OidcConfig) -> reqwest::Result<Self> {
        let keys = Keys::new(&settings.issuer)?;
        Ok(Self(Arc::new(Inner { settings, keys })))
    }

    /// What the operator set.
    pub fn settings(&self) -> &OidcConfig {
        &self.0.settings
    }

    /// What the token says, if it is good now.
    ///
    /// # Errors
    /// A 401 that says what is wrong with it; a 503 while there are no keys to check it with.
    pub async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Claims, ApiError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ApiError::wrong_token("it is too long"));
        }
        let header =
            decode_header(token).map_err(|_| ApiError::wrong_token("its header cannot be read"))?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(ApiError::wrong_token("it is not signed by RS256 or ES256"));
        }
        if header.crit.is_some() {
            return Err(ApiError::wrong_token(
                "it demands extensions that are not known here",
            ));
        }
        let kid = header
            .kid
            .ok_or_else(|| ApiError::wrong_token("it does not name its key (`kid`)"))?;
        let key = self
            .0
            .keys
            .find(&kid, now)
            .await?
            .ok_or_else(|| ApiError::wrong_token("its issuer has no such key (`kid`)"))?;
        let data = decode::<Claims>(token, &key.decoding, &self.validation(key.algorithm))
            .map_err(|error| ApiError::wrong_token(reason(error.kind())))?;
        self.checked(data.claims, now)
    }

    /// Times are checked apart, by the clock that everything else goes by.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.0.settings.issuer]);
        validation.set_audience(&self.0.settings.audiences);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }

    fn checked(&self, mut claims: Claims, now: OffsetDateTime) -> Result<Claims, ApiError> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds since 1970 are exact in an f64 for millions of years"
        )]
        let now = now.unix_timestamp() as f64;
        if claims.exp + LEEWAY_SECS <= now {
            return Err(ApiError::wrong_token("it has expired"));
        }
        if claims.nbf.is_some_and(|from| from - LEEWAY_SECS > now) {
            return Err(ApiError::wrong_token("it is not valid yet"));
        }
        if claims.sub.is_empty() || claims.sub.len() > 512 {
            return Err(ApiError::wrong_token("it does not say who you are (`sub`)"));
        }
        claims.groups = groups(&claims.rest, &self.0.settings.groups_claim);
        claims.rest.clear();
        Ok(claims)
    }
}

/// A list of names, or one name alone.
fn groups(claims: &serde_json::Map<String, serde_json::Value>, claim: &str) -> Vec<String> {
    match claims.get(claim) {
        Some(serde_json::Value::String(one)) => vec![one.clone()],
        Some(serde_json::Value::Array(many)) => many
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .take(MAX_GROUPS)
            .collect(),
        _ => Vec::new(),
    }
}

fn reason(kind: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidIssuer => "it comes from another issuer (`iss`)",
        ErrorKind::InvalidAudience => "it is meant for another service (`aud`)",
        ErrorKind::MissingRequiredClaim(_) => "one of `iss`, `aud`, `exp` and `sub` is missing",
        ErrorKind::InvalidAlgorithm => "it is not signed by its key's algorithm",
        _ => "its signature or content is wrong",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_taken_for_a_token() {
        assert!(looks_like_token(
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"
        ));
        for key in ["sk-attune-0123", "eyJ", "a.b.c", "eyJ.a", "eyJ.a.b.c"] {
            assert!(!looks_like_token(key), "{key}");
        }
    }

    #[test]
    fn groups_are_names_and_nothing_else() {
        let claims = |value: serde_json::Value| {
            let claims = serde_json::json!({ "groups": value });
            groups(claims.as_object().unwrap(), "groups")
        };
        assert_eq!(claims(serde_json::json!("ml")), ["ml"]);
        assert_eq!(claims(serde_json::json!(["ml", 3, "ops"])), ["ml", "ops"]);
        assert!(claims(serde_json::json!({"ml": true})).is_empty());
    }
}

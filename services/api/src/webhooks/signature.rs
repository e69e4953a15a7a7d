//! Signatures of the Standard Webhooks specification, version 1: HMAC-SHA256 of id, time and body.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::error::ApiError;

const PREFIX: &str = "whsec_";
/// The specification asks for 24 to 64.
const SECRET_BYTES: usize = 32;

/// A signing secret as its tenant gets it. It shows itself to nobody else.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn draw() -> Result<Self, ApiError> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| ApiError::internal(format!("no randomness: {error}")))?;
        Ok(Self(format!("{PREFIX}{}", STANDARD.encode(bytes))))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The header `webhook-signature`: one signature per secret. None if a secret is not one of ours.
pub(super) fn sign<'a>(
    secrets: impl IntoIterator<Item = &'a str>,
    id: &str,
    timestamp: i64,
    body: &str,
) -> Option<String> {
    let signatures: Option<Vec<String>> = secrets
        .into_iter()
        .map(|secret| {
            let key = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
            mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
            Some(format!(
                "v1,{}",
                STANDARD.encode(mac.finalize().into_bytes())
            ))
        })
        .collect();
    Some(signatures?.join(" ")).filter(|header| !header.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_specifications() {
        // The example of standardwebhooks.com's reference libraries.
        let header = sign(
            ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(
            header.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[test]
    fn a_secret_is_drawn_anew_and_hides_itself() {
        let (one, two) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert!(!format!("{one:?}").contains("whsec"));
        assert!(
            sign([one.expose(), two.expose()], "i", 0, "")
                .unwrap()
                .contains(" v1,")
        );
        assert_eq!(sign(["secret"], "i", 0, ""), None);
        assert_eq!(sign([], "i", 0, ""), None);
    }
}

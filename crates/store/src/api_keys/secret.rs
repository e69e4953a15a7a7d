//! The secret of a key, and what is kept of it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::StoreError;

/// What a key may act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// One project.
    Project,
    /// The organization itself: its projects and keys.
    Admin,
}

impl KeyKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Admin => "admin",
        }
    }

    pub(super) fn read(word: &str) -> Result<Self, StoreError> {
        [Self::Project, Self::Admin]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| StoreError::corrupt("kind of an API key", word.to_owned()))
    }

    fn secret_start(self) -> &'static str {
        match self {
            Self::Project => "sk-attune-",
            Self::Admin => "sk-attune-admin-",
        }
    }
}

/// A key's secret, which exists outside its owner's hands only while it is made or checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new secret of 256 random bits.
    ///
    /// # Errors
    /// [`StoreError::Randomness`] if the operating system gives none.
    pub fn generate(kind: KeyKind) -> Result<Self, StoreError> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(StoreError::Randomness)?;
        Ok(Self(format!(
            "{}{}",
            kind.secret_start(),
            hex::encode(bits)
        )))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Enough to tell keys apart and 224 bits too few to guess the rest.
    pub(super) fn prefix(&self) -> String {
        let start = if self.0.starts_with(KeyKind::Admin.secret_start()) {
            KeyKind::Admin.secret_start()
        } else {
            KeyKind::Project.secret_start()
        };
        self.0.chars().take(start.len() + 8).collect()
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The server's own secret: without it the hashes in a stolen database match nothing.
#[derive(Clone)]
pub struct Pepper([u8; 32]);

/// A pepper that is not 32 bytes of hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("the key pepper must be 64 hexadecimal digits")]
pub struct PepperError(#[source] hex::FromHexError);

impl Pepper {
    /// A pepper of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A pepper from 64 hexadecimal digits.
    ///
    /// # Errors
    /// If the text is something else. It is not repeated.
    pub fn from_hex(text: &str) -> Result<Self, PepperError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(PepperError)?;
        Ok(Self(bytes))
    }

    pub(super) fn hash(&self, secret: &str) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(secret.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_256_bits_and_hides_in_debug_output() {
        let secret = Secret::generate(KeyKind::Project).unwrap();
        assert_eq!(secret.expose().len(), "sk-attune-".len() + 64);
        assert_ne!(secret, Secret::generate(KeyKind::Project).unwrap());
        assert!(!format!("{secret:?}").contains(&secret.expose()[10..]));
    }

    #[test]
    fn a_prefix_shows_32_bits() {
        for kind in [KeyKind::Project, KeyKind::Admin] {
            let secret = Secret::generate(kind).unwrap();
            assert_eq!(secret.prefix().len(), kind.secret_start().len() + 8);
        }
    }

    #[test]
    fn the_same_secret_hashes_differently_under_another_pepper() {
        let hash = |byte| Pepper::new([byte; 32]).hash("sk-attune-1");
        assert_ne!(hash(1), hash(2));
    }

    #[test]
    fn a_short_pepper_is_refused_and_not_repeated() {
        let error = Pepper::from_hex("abcd").unwrap_err();
        assert!(!error.to_string().contains("abcd"), "{error}");
    }
}

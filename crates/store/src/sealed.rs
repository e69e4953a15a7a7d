//! Secrets that must be read again: a webhook's signing secret, the key of a tenant's own bucket.
//!
//! They are sealed with AES-256-GCM under a key that is not in the database, so a stolen dump opens none of them. The
//! [`Place`] of a value is authenticated with it: a value that is moved to another row, column or tenant does not open.
//! What is only ever compared, such as an API key, is hashed instead ([`crate::api_keys`]).
//!
//! A sealed value, byte by byte:
//!
//! ```text
//! 1        version, which is 1
//! 1        n, the length of the key's id
//! n        the key's id
//! 12       nonce, random
//! rest     ciphertext, and the 16 bytes of its tag
//! ```
//!
//! Authenticated with it, but not stored: version, the key's id, table, column, project and row, each behind its length.
//! Nonces are random, so one key may seal 2³² values (NIST SP 800-38D); an installation that comes near rotates first.

mod keyring;
mod rotation;

use std::fmt;

use domain::ProjectId;
use uuid::Uuid;

use crate::StoreError;

pub use keyring::{Keyring, KeyringError};
pub use rotation::{SEALED_COLUMNS, SealedColumn, rotate, rotate_column};

/// Where a sealed value stands. It opens there and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: &'static str,
    /// The column, of type `bytea`.
    pub column: &'static str,
    /// The row's tenant.
    pub project_id: ProjectId,
    /// The row.
    pub row_id: Uuid,
}

impl Place {
    /// What to store in this place.
    pub(crate) fn seal(self, keyring: &Keyring, secret: &[u8]) -> Result<Vec<u8>, StoreError> {
        let sealed = keyring.seal(&self, secret);
        sealed.map_err(|source| self.failed(source))
    }

    /// What was sealed in this place.
    pub(crate) fn open(self, keyring: &Keyring, sealed: &[u8]) -> Result<Plaintext, StoreError> {
        let opened = keyring.open(&self, sealed);
        opened.map_err(|source| self.failed(source))
    }

    pub(crate) fn failed(self, source: SealedError) -> StoreError {
        StoreError::Sealed {
            place: self,
            source,
        }
    }
}

/// What was sealed. It shows itself only to who asks for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Plaintext(Vec<u8>);

impl Plaintext {
    /// The secret itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The secret itself, as the text it was.
    ///
    /// # Errors
    /// [`SealedError::NotText`] if it was none.
    pub fn expose_text(&self) -> Result<&str, SealedError> {
        std::str::from_utf8(&self.0).map_err(|_| SealedError::NotText)
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext(…)")
    }
}

/// Why a value was not sealed or opened. It never says what was in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// The value is not laid out as a sealed one.
    #[error(
        "the stored value is not a sealed one; the row was written by something else or damaged"
    )]
    Malformed,
    /// The keyring lacks the key.
    #[error(
        "the value was sealed with the key `{0}`, which this service does not have; put the key back at the end of \
         ATTUNE_SECRET_KEYS, then run `attune admin secrets rotate`"
    )]
    UnknownKey(String),
    /// Key and value do not belong together: changed, moved to another row, or another key under the same id.
    #[error(
        "the value sealed with the key `{0}` does not open here: it was altered, moved, or the key is not the one it names"
    )]
    Refused(String),
    /// The cipher did not work.
    #[error("the value could not be sealed")]
    Seal,
    /// What opened is not UTF-8.
    #[error("the sealed value is not text")]
    NotText,
}

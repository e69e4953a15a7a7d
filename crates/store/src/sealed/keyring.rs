//! The keys that values are sealed with: the first seals, all of them open.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

use super::{Place, Plaintext, SealedError};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Characters of a key's id: its length is one byte of each value.
const MAX_ID_CHARS: usize = 32;
/// Keys of a ring. More than two are left of a rotation that was never finished.
const MAX_KEYS: usize = 16;

/// Keys to seal and open with. Cloning shares them.
#[derive(Clone)]
pub struct Keyring(Arc<[Key]>);

struct Key {
    id: String,
    aead: RandomizedNonceKey,
}

/// Settings that make no keyring. No key is repeated.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Both settings are there.
    #[error("ATTUNE_SECRET_KEYS and ATTUNE_SECRET_KEYS_FILE are both set; keep one of them")]
    Ambiguous,
    /// The file cannot be read.
    #[error("ATTUNE_SECRET_KEYS_FILE names `{path}`, which cannot be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no key, or there are too many.
    #[error("ATTUNE_SECRET_KEYS holds {0} keys; it takes 1 to {MAX_KEYS}, as `id:hex,id:hex`")]
    Count(usize),
    /// Not `id:hex`.
    #[error(
        "key {0} of ATTUNE_SECRET_KEYS is not `id:hex`: an id of 1 to {MAX_ID_CHARS} letters, digits, `-` or `_`, a colon and \
         64 hexadecimal digits"
    )]
    Malformed(usize),
    /// Two keys with one id.
    #[error("ATTUNE_SECRET_KEYS holds two keys with the id `{0}`")]
    Duplicate(String),
}

impl Keyring {
    /// The ring of `id:hex,id:hex`. A file may also hold one key a line.
    ///
    /// # Errors
    /// Says which key is malformed, by its number.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let parts = text.split([',', '\n']).map(str::trim);
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        if parts.is_empty() || parts.len() > MAX_KEYS {
            return Err(KeyringError::Count(parts.len()));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            let key = Key::parse(part).ok_or(KeyringError::Malformed(index + 1))?;
            if keys.iter().any(|earlier| earlier.id == key.id) {
                return Err(KeyringError::Duplicate(key.id));
            }
            keys.push(key);
        }
        Ok(Self(keys.into()))
    }

    /// The ring that the settings name: `keys` is `ATTUNE_SECRET_KEYS`, `file` is `ATTUNE_SECRET_KEYS_FILE`. None if
    /// neither is set.
    ///
    /// # Errors
    /// The setting at fault, by name.
    pub fn from_settings(
        keys: Option<&str>,
        file: Option<&str>,
    ) -> Result<Option<Self>, KeyringError> {
        match (keys, file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(KeyringError::Ambiguous),
            (Some(keys), None) => Self::parse(keys).map(Some),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(Path::new(path)).map_err(|source| {
                    let path = path.to_owned();
                    KeyringError::File { path, source }
                })?;
                Self::parse(&text).map(Some)
            }
        }
    }

    /// The ring of `ATTUNE_SECRET_KEYS` or `ATTUNE_SECRET_KEYS_FILE`, whichever of them `variable` knows. None if it knows
    /// neither.
    ///
    /// # Errors
    /// As [`Self::from_settings`].
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, KeyringError> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        Self::from_settings(
            set("ATTUNE_SECRET_KEYS").as_deref(),
            set("ATTUNE_SECRET_KEYS_FILE").as_deref(),
        )
    }

    /// Seals a secret for its place, with the first key.
    ///
    /// # Errors
    /// [`SealedError::Seal`] if the cipher or its randomness fails.
    pub fn seal(&self, place: &Place, secret: &[u8]) -> Result<Vec<u8>, SealedError> {
        let key = &self.0[0];
        let mut text = secret.to_vec();
        let nonce = key
            .aead
            .seal_in_place_append_tag(Aad::from(authenticated(&key.id, place)), &mut text)
            .map_err(|_| SealedError::Seal)?;
        let mut sealed = vec![VERSION, length(&key.id)];
        sealed.extend_from_slice(key.id.as_bytes());
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what was sealed for this place, with whichever key it names.
    ///
    /// # Errors
    /// Says whether the key is missing or the value is not what was sealed here.
    pub fn open(&self, place: &Place, sealed: &[u8]) -> Result<Plaintext, SealedError> {
        let parts = Parts::read(sealed).ok_or(SealedError::Malformed)?;
        let id = parts.key_id;
        let key = self.0.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| SealedError::UnknownKey(id.to_owned()))?;
        let mut text = parts.ciphertext.to_vec();
        let aad = Aad::from(authenticated(id, place));
        let opened = key
            .aead
            .open_in_place(Nonce::from(parts.nonce), aad, &mut text)
            .map_err(|_| SealedError::Refused(id.to_owned()))?
            .len();
        text.truncate(opened);
        Ok(Plaintext(text))
    }

    /// Whether a value is sealed with the key that seals today. One that is not waits for `attune admin secrets rotate`.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        Parts::read(sealed).is_some_and(|parts| parts.key_id == self.0[0].id)
    }

    /// The id of the key that seals.
    pub fn current_id(&self) -> &str {
        &self.0[0].id
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|key| &key.id))
            .finish()
    }
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let (id, digits) = text.split_once(':')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.is_empty() || id.len() > MAX_ID_CHARS || !id.chars().all(plain) {
            return None;
        }
        let mut bytes = [0; KEY_BYTES];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        let aead = RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()?;
        let id = id.to_owned();
        Some(Self { id, aead })
    }
}

/// A sealed value, taken apart.
struct Parts<'a> {
    key_id: &'a str,
    nonce: &'a [u8; NONCE_LEN],
    ciphertext: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(sealed: &'a [u8]) -> Option<Self> {
        let (&[version, id_length], rest) = sealed.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        let (key_id, rest) = rest.split_at_checked(usize::from(id_length))?;
        let (nonce, ciphertext) = rest.split_first_chunk()?;
        (ciphertext.len() >= TAG_BYTES).then_some(Self {
            key_id: std::str::from_utf8(key_id).ok()?,
            nonce,
            ciphertext,
        })
    }
}

/// What a value is bound to. Each part stands behind its length, so that no two places give the same bytes.
fn authenticated(key_id: &str, place: &Place) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for part in [
        key_id.as_bytes(),
        place.table.as_bytes(),
        place.column.as_bytes(),
        place.project_id.0.as_bytes(),
        place.row_id.as_bytes(),
    ] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn length(id: &str) -> u8 {
    u8::try_from(id.len()).expect("an id has at most 32 characters")
}

#[cfg(test)]
mod tests {
    use domain::ProjectId;
    use uuid::Uuid;

    use super::*;

    fn ring(ids: &[&str]) -> Keyring {
        let keys = ids.iter().map(|id| {
            let byte = id.bytes().fold(7_u8, u8::wrapping_add);
            format!("{id}:{}", hex::encode([byte; KEY_BYTES]))
        });
        Keyring::parse(&keys.collect::<Vec<_>>().join(",")).unwrap()
    }

    fn place() -> Place {
        Place {
            table: "webhook_endpoints",
            column: "secret",
            project_id: ProjectId(Uuid::from_u128(1)),
            row_id: Uuid::from_u128(2),
        }
    }

    #[test]
    fn a_secret_comes_back_and_is_not_in_what_is_stored() {
        let ring = ring(&["a"]);
        for secret in [&b""[..], b"whsec_c2VjcmV0", &[0xff; 5000]] {
            let sealed = ring.seal(&place(), secret).unwrap();
            assert_eq!(ring.open(&place(), &sealed).unwrap().expose(), secret);
            assert!(secret.is_empty() || !sealed.windows(secret.len()).any(|part| part == secret));
        }
        let [once, again] = [(); 2].map(|()| ring.seal(&place(), b"same").unwrap());
        assert_ne!(once, again);
    }

    #[test]
    fn a_value_opens_in_its_own_place_only() {
        let ring = ring(&["a"]);
        let sealed = ring.seal(&place(), b"secret").unwrap();
        for other in [
            Place {
                table: "buckets",
                ..place()
            },
            Place {
                column: "old_secret",
                ..place()
            },
            Place {
                project_id: ProjectId(Uuid::from_u128(9)),
                ..place()
            },
            Place {
                row_id: Uuid::from_u128(9),
                ..place()
            },
            // The same letters, cut at another place.
            Place {
                table: "webhook_endpointss",
                column: "ecret",
                ..place()
            },
        ] {
            let refused = ring.open(&other, &sealed).unwrap_err();
            assert_eq!(refused, SealedError::Refused("a".to_owned()), "{other:?}");
        }
    }

    #[test]
    fn no_byte_can_be_changed_or_cut() {
        let ring = ring(&["a", "b"]);
        let sealed = ring.seal(&place(), b"secret").unwrap();
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[index] ^= 1 << bit;
                assert!(
                    ring.open(&place(), &changed).is_err(),
                    "byte {index}, bit {bit}"
                );
            }
            assert!(
                ring.open(&place(), &sealed[..index]).is_err(),
                "{index} bytes"
            );
        }
    }

    #[test]
    fn an_old_key_opens_and_the_first_seals() {
        let sealed = ring(&["old"]).seal(&place(), b"secret").unwrap();
        let rotated = ring(&["new", "old"]);
        assert_eq!(rotated.open(&place(), &sealed).unwrap().expose(), b"secret");
        assert!(!rotated.is_current(&sealed));
        let sealed = rotated.seal(&place(), b"secret").unwrap();
        assert!(rotated.is_current(&sealed));
        let message = ring(&["old"])
            .open(&place(), &sealed)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`new`") && message.contains("ATTUNE_SECRET_KEYS"),
            "{message}"
        );
    }

    #[test]
    fn settings_that_make_no_ring_are_refused_without_repeating_a_key() {
        let key = "ab".repeat(KEY_BYTES);
        for text in [
            String::new(),
            " , ".to_owned(),
            key.clone(),
            format!(":{key}"),
            format!("a:{}", &key[2..]),
            format!("a:{key}ab"),
            format!("a:{key},a:{key}"),
            format!("a b:{key}"),
            format!("{}:{key}", "x".repeat(MAX_ID_CHARS + 1)),
            format!("a:{key},").repeat(MAX_KEYS + 1),
        ] {
            let message = Keyring::parse(&text).unwrap_err().to_string();
            assert!(message.contains("ATTUNE_SECRET_KEYS"), "{message}");
            assert!(!message.contains("abab"), "{message}");
        }
        assert!(Keyring::from_settings(Some("a"), Some("b")).is_err());
        assert!(Keyring::from_settings(None, None).unwrap().is_none());
        let missing = Keyring::from_settings(None, Some("/no/such/file")).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"));
    }

    #[test]
    fn nothing_shows_a_key_or_a_secret() {
        let ring = ring(&["a"]);
        let sealed = ring.seal(&place(), b"secret").unwrap();
        let opened = ring.open(&place(), &sealed).unwrap();
        assert_eq!(format!("{ring:?} {opened:?}"), r#"["a"] Plaintext(…)"#);
    }
}

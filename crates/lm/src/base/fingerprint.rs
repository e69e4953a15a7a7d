//! One hash for what a base model is.

use std::fs::File;
use std::io::Read;

use sha2::{Digest, Sha256};

use super::BaseFiles;
use crate::error::LoadError;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

impl BaseFiles {
    /// SHA-256 over the documents and the contents of the weight files, in hexadecimal. Names of
    /// weight files do not matter, so a GGUF file alone and the same file beside its documents have
    /// one fingerprint.
    ///
    /// # Errors
    /// When a weight file cannot be read.
    pub fn fingerprint(&self) -> Result<String, LoadError> {
        let mut hasher = Sha256::new();
        for (name, bytes) in self.documents() {
            part(&mut hasher, name, bytes.len() as u64);
            hasher.update(bytes);
        }
        for path in &self.weight_files {
            let mut file = File::open(path).map_err(LoadError::io(path))?;
            let len = file.metadata().map_err(LoadError::io(path))?.len();
            part(&mut hasher, "weights", len);
            let mut chunk = vec![0; CHUNK_BYTES];
            loop {
                let read = file.read(&mut chunk).map_err(LoadError::io(path))?;
                if read == 0 {
                    break;
                }
                hasher.update(&chunk[..read]);
            }
        }
        Ok(hex(&hasher.finalize()))
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("four bits");
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Marks where a part begins and how long it is, so that bytes cannot move between parts unseen.
fn part(hasher: &mut Sha256, name: &str, len: u64) {
    hasher.update((name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(len.to_le_bytes());
}

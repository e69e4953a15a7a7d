//! A folder on disk that mirrors a prefix: what services keep of base models and checkpoints.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{ArtifactError, ObjectStore};

impl ObjectStore {
    /// Makes sure that `dir` holds the files from below `prefix` (which ends in `/`) that `sums` names,
    /// each with its SHA-256 in hexadecimal.
    ///
    /// A file appears under its name only when it is whole. One that is already there is checked
    /// again, because disks rot and a cache may be shared; two processes may mirror into one folder.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::get_file_verified`]; files that arrived before the error stay.
    pub async fn mirror(
        &self,
        prefix: &str,
        sums: &BTreeMap<String, String>,
        dir: &Path,
    ) -> Result<(), ArtifactError> {
        tokio::fs::create_dir_all(dir)
            .await
            .map_err(|error| ArtifactError::local("create", dir, error))?;
        for (name, sha256) in sums {
            let path = dir.join(plain_name(name)?);
            let (here, expected) = (path.clone(), sha256.clone());
            let is_whole = tokio::task::spawn_blocking(move || is_whole(&here, &expected));
            if !is_whole.await.unwrap_or(false) {
                let key = format!("{prefix}{name}");
                self.get_file_verified(&key, &path, sha256).await?;
            }
        }
        Ok(())
    }

    /// Fetches into `dir` those of `names` that lie below `prefix` (which ends in `/`), and says which they were.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::list`] and [`ObjectStore::get_file`].
    pub async fn get_present<'a>(
        &self,
        prefix: &str,
        names: &[&'a str],
        dir: &Path,
    ) -> Result<Vec<&'a str>, ArtifactError> {
        let stored = self.list(prefix).await?;
        let is_there = |name: &str| {
            let mut names = stored.iter().map(|object| object.key.strip_prefix(prefix));
            names.any(|stored| stored == Some(name))
        };
        let there: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| is_there(name))
            .collect();
        for name in &there {
            self.get_file(&format!("{prefix}{name}"), &dir.join(name))
                .await?;
        }
        Ok(there)
    }
}

/// Stored names become file names, so they must not lead elsewhere.
fn plain_name(name: &str) -> Result<&str, ArtifactError> {
    let is_plain = Path::new(name)
        .file_name()
        .is_some_and(|file_name| file_name == name);
    if is_plain {
        return Ok(name);
    }
    let reason = "it is not a plain file name";
    Err(ArtifactError::InvalidKey {
        key: name.chars().take(160).collect(),
        reason,
    })
}

fn is_whole(path: &Path, expected: &str) -> bool {
    sha256(path).is_ok_and(|sha256| sha256 == expected)
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_leave_the_folder() {
        assert!(plain_name("model-00001-of-00002.safetensors").is_ok());
        for name in ["../x", "/etc/passwd", "a/b", "..", "", "a/"] {
            assert!(plain_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_damaged_download_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "whole").unwrap();
        let expected = sha256(&path).unwrap();
        assert!(is_whole(&path, &expected));
        std::fs::write(&path, "whale").unwrap();
        assert!(!is_whole(&path, &expected));
        assert!(!is_whole(&dir.path().join("missing"), &expected));
    }
}

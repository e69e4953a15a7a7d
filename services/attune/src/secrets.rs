//! The secrets of one installation, made at the first start and kept.

use std::fmt;
use std::fs;

use anyhow::{Context, Result, ensure};
use artifacts::embedded::Credentials;
use serde::{Deserialize, Serialize};

use crate::data_dir::DataDir;

const FILE: &str = "secrets.json";

/// What must stay the same from start to start, and out of every log.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    pub s3_access_key_id: String,
    pub s3_secret_access_key: String,
    /// 32 bytes in hexadecimal; without it no stored key can be checked.
    pub key_pepper: String,
    /// Between the API and the inference service.
    pub internal_token: String,
    /// The default project's key.
    pub api_key: String,
    /// The default organization's admin key.
    pub admin_key: String,
    /// What tenants' secrets are sealed with, as `ATTUNE_SECRET_KEYS`. To rotate, put a new key in front, run
    /// `attune admin secrets rotate`, and take the old one out. Empty in a directory that is older than sealed secrets.
    #[serde(default)]
    pub secret_keys: String,
}

impl Secrets {
    /// Reads the secrets of the installation, or makes them where there is none yet.
    ///
    /// # Errors
    ///
    /// When they cannot be read or written, or when they are gone though there is a database: new
    /// ones would lock everyone out of it.
    pub fn open(dir: &DataDir) -> Result<Self> {
        let path = dir.path(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let read = serde_json::from_str(&text);
                let secrets: Self = read.with_context(|| format!("in `{}`", path.display()))?;
                secrets.completed(dir)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                ensure!(
                    !dir.path("postgres").exists(),
                    "`{}` is missing, but there is a database beside it: put the file back, or move the data directory away to start anew",
                    path.display(),
                );
                let secrets = Self::generate()?;
                secrets.write(dir)?;
                Ok(secrets)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }

    fn generate() -> Result<Self> {
        Ok(Self {
            s3_access_key_id: format!("ATTUNE{}", random_hex(7)?.to_uppercase()),
            s3_secret_access_key: random_hex(32)?,
            key_pepper: random_hex(32)?,
            internal_token: random_hex(32)?,
            api_key: format!("sk-attune-{}", random_hex(32)?),
            admin_key: format!("sk-attune-admin-{}", random_hex(32)?),
            secret_keys: sealing_key()?,
        })
    }

    /// Adds what an older version did not know of.
    fn completed(mut self, dir: &DataDir) -> Result<Self> {
        if self.secret_keys.is_empty() {
            self.secret_keys = sealing_key()?;
            self.write(dir)?;
        }
        Ok(self)
    }

    fn write(&self, dir: &DataDir) -> Result<()> {
        dir.write_private(FILE, &serde_json::to_string_pretty(self)?)?;
        Ok(())
    }

    pub fn s3_credentials(&self) -> Credentials {
        Credentials {
            access_key_id: self.s3_access_key_id.clone(),
            secret_access_key: self.s3_secret_access_key.clone(),
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// The first key of a keyring. A rotation adds others, under other ids.
fn sealing_key() -> Result<String> {
    Ok(format!("k1:{}", random_hex(32)?))
}

fn random_hex(n_bytes: usize) -> Result<String> {
    let mut bytes = vec![0; n_bytes];
    getrandom::fill(&mut bytes).context("the system has no random numbers")?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn secrets_are_made_once_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(Some(folder.path())).unwrap();
        let first = Secrets::open(&dir).unwrap();
        let second = Secrets::open(&dir).unwrap();
        assert_eq!(first.api_key, second.api_key);
        assert_ne!(first.api_key, first.admin_key);
        assert_eq!(fs::metadata(dir.path(FILE)).unwrap().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&first.key_pepper));
    }

    #[test]
    fn a_directory_from_before_sealed_secrets_gets_its_key_once() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(Some(folder.path())).unwrap();
        let first = Secrets::open(&dir).unwrap();
        let mut old: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(dir.path(FILE)).unwrap()).unwrap();
        old.as_object_mut().unwrap().remove("secret_keys");
        fs::write(dir.path(FILE), old.to_string()).unwrap();

        let upgraded = Secrets::open(&dir).unwrap();
        assert_eq!(upgraded.api_key, first.api_key);
        store::sealed::Keyring::parse(&upgraded.secret_keys).unwrap();
        assert_eq!(
            Secrets::open(&dir).unwrap().secret_keys,
            upgraded.secret_keys
        );
    }

    #[test]
    fn lost_secrets_are_not_replaced_beside_a_database() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(Some(folder.path())).unwrap();
        fs::create_dir(dir.path("postgres")).unwrap();
        let message = Secrets::open(&dir).unwrap_err().to_string();
        assert!(message.contains("secrets.json"), "{message}");
    }
}

//! The service's settings, from the environment.

use std::fmt;
use std::net::SocketAddr;

use anyhow::Context as _;
use artifacts::S3Config;
use domain::limits::{DEFAULT_MAX_FILE_BYTES, DEFAULT_MAX_UPLOAD_BYTES};
use store::api_keys::Pepper;
use store::sealed::Keyring;

use crate::auth::oidc::OidcConfig;
use crate::outbound::target::Policy;

/// Where the service listens unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// Everything the service must be told.
#[derive(Clone)]
pub struct Config {
    /// Postgres, with the login of this service (`DATABASE_URL`).
    pub database_url: String,
    /// Postgres, with a login that may see every project (`ATTUNE_SWEEP_DATABASE_URL`). This service's own login
    /// may not see more than one at a time, so without this it leaves sweeping and batches to other replicas.
    pub sweep_database_url: Option<String>,
    /// The installation's bucket (`ATTUNE_S3_…`).
    pub s3: S3Config,
    /// What API keys are hashed with (`ATTUNE_KEY_PEPPER`).
    pub key_pepper: Pepper,
    /// What tenants' secrets are sealed with (`ATTUNE_SECRET_KEYS` or `ATTUNE_SECRET_KEYS_FILE`). Without it the service
    /// runs, and refuses to take secrets; nor does it reach projects' own buckets.
    pub keyring: Option<Keyring>,
    /// Whose tokens are believed, beside API keys (`ATTUNE_OIDC_…`).
    pub oidc: Option<OidcConfig>,
    /// Where webhooks may go (`ATTUNE_WEBHOOK_ALLOW_HTTP`, `ATTUNE_WEBHOOK_ALLOW_PRIVATE`).
    pub webhook_targets: Policy,
    /// Where servers of Weights & Biases may be (`ATTUNE_WANDB_ALLOW_HTTP`, `ATTUNE_WANDB_ALLOW_PRIVATE`). Apart from
    /// webhooks, because tenants name those: a server inside the walls is no reason to let them in.
    pub wandb_targets: Policy,
    /// The inference service's address (`ATTUNE_INFERENCE_URL`).
    pub inference_url: String,
    /// What tells the inference service that it is us (`ATTUNE_INTERNAL_TOKEN`).
    pub internal_token: String,
    /// Where to listen (`ATTUNE_LISTEN`).
    pub listen: SocketAddr,
    /// Processes of this service that share the load (`ATTUNE_API_REPLICAS`).
    pub replicas: u32,
    /// Whether `x-forwarded-for` is believed (`ATTUNE_TRUSTED_PROXY=1`): only where every request comes through a proxy
    /// that sets it.
    pub trusts_proxy: bool,
    /// The largest file a tenant may send in one request (`ATTUNE_MAX_FILE_BYTES`).
    pub max_file_bytes: u64,
    /// The largest file a tenant may send in parts (`ATTUNE_MAX_UPLOAD_BYTES`).
    pub max_upload_bytes: u64,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// The variable that is missing or cannot be read, by name.
    pub fn from_env() -> anyhow::Result<Self> {
        let s3 = S3Config::from_env()?;
        Self::from_variables(s3, |name| {
            std::env::var(name).ok().filter(|value| !value.is_empty())
        })
    }

    /// Reads settings from wherever `variable` finds them.
    ///
    /// # Errors
    /// As [`Self::from_env`].
    pub fn from_variables(
        s3: S3Config,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let required = |name: &str| variable(name).with_context(|| format!("{name} is not set"));
        let listen = variable("ATTUNE_LISTEN").unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
        Ok(Self {
            database_url: required("DATABASE_URL")?,
            sweep_database_url: variable("ATTUNE_SWEEP_DATABASE_URL"),
            s3,
            key_pepper: Pepper::from_hex(&required("ATTUNE_KEY_PEPPER")?)
                .context("ATTUNE_KEY_PEPPER cannot be used")?,
            keyring: Keyring::from_variables(&variable)?,
            oidc: OidcConfig::from_variables(&variable)?,
            webhook_targets: Policy {
                allow_http: switch(&variable, "ATTUNE_WEBHOOK_ALLOW_HTTP")?,
                allow_private: switch(&variable, "ATTUNE_WEBHOOK_ALLOW_PRIVATE")?,
            },
            wandb_targets: Policy {
                allow_http: switch(&variable, "ATTUNE_WANDB_ALLOW_HTTP")?,
                allow_private: switch(&variable, "ATTUNE_WANDB_ALLOW_PRIVATE")?,
            },
            inference_url: required("ATTUNE_INFERENCE_URL")?,
            internal_token: required("ATTUNE_INTERNAL_TOKEN")?,
            listen: listen
                .parse()
                .with_context(|| format!("ATTUNE_LISTEN is `{listen}`, which is not host:port"))?,
            replicas: replicas(variable("ATTUNE_API_REPLICAS").as_deref())?,
            trusts_proxy: switch(&variable, "ATTUNE_TRUSTED_PROXY")?,
            max_file_bytes: bytes(&variable, "ATTUNE_MAX_FILE_BYTES", DEFAULT_MAX_FILE_BYTES)?,
            max_upload_bytes: bytes(
                &variable,
                "ATTUNE_MAX_UPLOAD_BYTES",
                DEFAULT_MAX_UPLOAD_BYTES,
            )?,
        })
    }
}

/// Reads `ATTUNE_API_REPLICAS`.
///
/// # Errors
/// It is no number of processes.
fn replicas(text: Option<&str>) -> anyhow::Result<u32> {
    let Some(text) = text else { return Ok(1) };
    let replicas = text.parse().ok().filter(|replicas| *replicas > 0);
    replicas.with_context(|| {
        format!("ATTUNE_API_REPLICAS is `{text}`, which is no number of processes")
    })
}

/// A bound of a length.
fn bytes(
    variable: impl Fn(&str) -> Option<String>,
    name: &str,
    default: u64,
) -> anyhow::Result<u64> {
    let Some(text) = variable(name) else {
        return Ok(default);
    };
    let bytes = text.parse().ok().filter(|bytes| *bytes > 0);
    bytes.with_context(|| format!("{name} is `{text}`, which is no number of bytes"))
}

/// A setting that is on or off. A word that is neither is no reason to guess: this opens a door.
fn switch(variable: impl Fn(&str) -> Option<String>, name: &str) -> anyhow::Result<bool> {
    match variable(name).as_deref() {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(other) => anyhow::bail!("{name} is `{other}`, which is neither 1 nor 0"),
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both database URLs hold passwords.
        f.debug_struct("Config")
            .field("s3", &self.s3)
            .field("inference_url", &self.inference_url)
            .field("listen", &self.listen)
            .field("max_file_bytes", &self.max_file_bytes)
            .field("max_upload_bytes", &self.max_upload_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(changed: &str, value: Option<&str>) -> anyhow::Result<Config> {
        let s3 = S3Config {
            endpoint: "http://127.0.0.1:1".into(),
            region: "us-east-1".into(),
            bucket: "b".into(),
            prefix: String::new(),
            path_style: true,
            access_key_id: "id".into(),
            secret_access_key: "s3-secret".into(),
        };
        Config::from_variables(s3, |name| {
            if name == changed {
                return value.map(str::to_owned);
            }
            match name {
                "DATABASE_URL" => Some("postgres://api:db-secret@h/d".into()),
                "ATTUNE_KEY_PEPPER" => Some("ab".repeat(32)),
                "ATTUNE_INFERENCE_URL" => Some("http://127.0.0.1:2".into()),
                "ATTUNE_INTERNAL_TOKEN" => Some("token-secret".into()),
                _ => None,
            }
        })
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (name, value) in [
            ("DATABASE_URL", None),
            ("ATTUNE_KEY_PEPPER", Some("abc")),
            ("ATTUNE_INFERENCE_URL", None),
            ("ATTUNE_INTERNAL_TOKEN", None),
            ("ATTUNE_LISTEN", Some("8080")),
            ("ATTUNE_MAX_FILE_BYTES", Some("0")),
            ("ATTUNE_MAX_UPLOAD_BYTES", Some("8 GB")),
            ("ATTUNE_API_REPLICAS", Some("0")),
            ("ATTUNE_TRUSTED_PROXY", Some("yes")),
            ("ATTUNE_SECRET_KEYS", Some("k1:abc")),
            ("ATTUNE_WEBHOOK_ALLOW_PRIVATE", Some("maybe")),
            ("ATTUNE_WANDB_ALLOW_HTTP", Some("yes")),
            ("ATTUNE_SECRET_KEYS_FILE", Some("/no/such/file")),
        ] {
            let message = read(name, value).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn the_rest_has_defaults_and_no_secret_is_shown() {
        let config = read("", None).unwrap();
        assert_eq!(config.max_file_bytes, DEFAULT_MAX_FILE_BYTES);
        assert_eq!(config.max_upload_bytes, DEFAULT_MAX_UPLOAD_BYTES);
        assert_eq!(config.listen.port(), 8080);
        assert!(!format!("{config:?}").contains("secret"));
    }
}

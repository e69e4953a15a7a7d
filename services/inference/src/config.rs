//! The service's settings, read from the environment once.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, ensure};
use artifacts::S3Config;
use store::sealed::Keyring;

/// Settings of the inference service.
#[derive(Clone)]
pub struct Config {
    /// The login `attune_inference` of the installation's Postgres.
    pub database_url: String,
    /// The installation's bucket: base models, and the adapters of projects that have no bucket of their own.
    pub s3: S3Config,
    /// What opens the credentials of projects' own buckets. Without it their models do not answer.
    pub keyring: Option<Keyring>,
    /// What the API has to send as bearer token. Whoever knows it speaks for every project.
    pub internal_token: String,
    /// Where downloaded base models are kept between starts.
    pub cache_dir: PathBuf,
    /// `cpu` or `cuda[:n]`.
    pub device: String,
    /// How much is kept and how much runs at once.
    pub limits: Limits,
}

/// How much is kept and how much runs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests that generate at the same time. More than one shares the device's cores.
    pub concurrency: usize,
    /// Requests that wait for their turn; the next one is turned away.
    pub queue_depth: usize,
    /// Base models kept in memory.
    pub max_bases: usize,
    /// Adapters kept in memory.
    pub max_adapters: usize,
    /// The largest request body.
    pub max_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 1,
            queue_depth: 32,
            max_bases: 2,
            max_adapters: 64,
            max_body_bytes: 8 * 1024 * 1024,
        }
    }
}

impl Config {
    /// Reads `DATABASE_URL`, `ATTUNE_S3_*`, `ATTUNE_SECRET_KEYS` or `ATTUNE_SECRET_KEYS_FILE`, `ATTUNE_INTERNAL_TOKEN`,
    /// `ATTUNE_CACHE_DIR`, and where they differ from the defaults `ATTUNE_DEVICE` and
    /// `ATTUNE_INFERENCE_{CONCURRENCY,QUEUE_DEPTH,MAX_BASES,MAX_ADAPTERS}`.
    ///
    /// # Errors
    ///
    /// Names the variable that is missing or cannot be read.
    pub fn from_env() -> anyhow::Result<Self> {
        Self::from_variables(|name| env::var(name).ok(), S3Config::from_env()?)
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        s3: S3Config,
    ) -> anyhow::Result<Self> {
        let required = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .with_context(|| format!("{name} is not set"))
        };
        let defaults = Limits::default();
        let limits = Limits {
            concurrency: count(
                &variable,
                "ATTUNE_INFERENCE_CONCURRENCY",
                defaults.concurrency,
            )?,
            queue_depth: count(
                &variable,
                "ATTUNE_INFERENCE_QUEUE_DEPTH",
                defaults.queue_depth,
            )?,
            max_bases: count(&variable, "ATTUNE_INFERENCE_MAX_BASES", defaults.max_bases)?,
            max_adapters: count(
                &variable,
                "ATTUNE_INFERENCE_MAX_ADAPTERS",
                defaults.max_adapters,
            )?,
            max_body_bytes: defaults.max_body_bytes,
        };
        Ok(Self {
            database_url: required("DATABASE_URL")?,
            s3,
            keyring: Keyring::from_variables(&variable)?,
            internal_token: required("ATTUNE_INTERNAL_TOKEN")?,
            cache_dir: required("ATTUNE_CACHE_DIR")?.into(),
            device: required("ATTUNE_DEVICE").unwrap_or_else(|_| "cpu".to_owned()),
            limits,
        })
    }
}

impl fmt::Debug for Config {
    /// Leaves out the token and the database's URL, which holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("s3", &self.s3)
            .field("cache_dir", &self.cache_dir)
            .field("device", &self.device)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A setting that counts something, at least one.
fn count(
    variable: impl Fn(&str) -> Option<String>,
    name: &str,
    default: usize,
) -> anyhow::Result<usize> {
    let Some(text) = variable(name).filter(|text| !text.is_empty()) else {
        return Ok(default);
    };
    let value = usize::from_str(&text).with_context(|| format!("{name} is `{text}`"))?;
    ensure!(value > 0, "{name} is 0; it must be at least 1");
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3() -> S3Config {
        S3Config {
            endpoint: "http://127.0.0.1:9000".to_owned(),
            region: "us-east-1".to_owned(),
            bucket: "attune".to_owned(),
            prefix: String::new(),
            path_style: true,
            access_key_id: "id".to_owned(),
            secret_access_key: "secret".to_owned(),
        }
    }

    fn variables(name: &str) -> Option<String> {
        match name {
            "DATABASE_URL" => Some("postgres://u:the-password@h/d".to_owned()),
            "ATTUNE_INTERNAL_TOKEN" => Some("the-token".to_owned()),
            "ATTUNE_CACHE_DIR" => Some("/var/cache/attune".to_owned()),
            "ATTUNE_INFERENCE_QUEUE_DEPTH" => Some("7".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn settings_have_defaults_and_secrets_are_not_shown() {
        let config = Config::from_variables(variables, s3()).unwrap();
        assert_eq!(
            config.limits,
            Limits {
                queue_depth: 7,
                ..Limits::default()
            }
        );
        assert_eq!(config.device, "cpu");
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("the-token") && !shown.contains("the-password"),
            "{shown}"
        );
    }

    #[test]
    fn a_missing_or_senseless_setting_is_named() {
        for (broken, value) in [
            ("ATTUNE_INTERNAL_TOKEN", None),
            ("ATTUNE_INFERENCE_MAX_BASES", Some("0")),
            ("ATTUNE_INFERENCE_CONCURRENCY", Some("many")),
        ] {
            let lookup = |name: &str| {
                if name == broken {
                    value.map(str::to_owned)
                } else {
                    variables(name)
                }
            };
            let error = Config::from_variables(lookup, s3()).unwrap_err();
            assert!(format!("{error:#}").contains(broken), "{error:#}");
        }
    }
}

//! Storage of one installation: the embedded Postgres and S3, and what services must know of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use artifacts::embedded::{self, EmbeddedS3};
use artifacts::{S3Config, SharedObjects};
use store::migrate::{API_LOGIN, INFERENCE_LOGIN, WORKER_LOGIN};

use crate::data_dir::{DataDir, Lock, Running};
use crate::postgres::{self, Cluster};
use crate::registry::{self, FirstKeys};
use crate::secrets::Secrets;
use crate::supervisor::Supervised;

/// The bucket of an installation.
const BUCKET: &str = "attune";

/// Environment variables.
pub type Environment = BTreeMap<&'static str, String>;

/// Running storage, with everything that a service needs in place: schema, first project, bucket.
pub struct Storage {
    dir: DataDir,
    secrets: Secrets,
    cluster: Cluster,
    postgres: Supervised,
    s3: EmbeddedS3,
    _lock: Lock,
}

/// How to reach storage that runs, here or in another process.
#[derive(Clone, Debug)]
pub struct Reach {
    pub admin_url: String,
    pub s3: S3Config,
}

impl Storage {
    /// Starts both servers, brings the schema up to date and makes the first project.
    ///
    /// # Errors
    ///
    /// When one of them cannot start; none is left running then.
    pub async fn start(dir: &DataDir, lock: Lock, s3_port: u16) -> Result<Self> {
        dir.clear_running()?;
        let secrets = Secrets::open(dir)?;
        dir.private_dir("cache")?;
        let s3_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, s3_port));
        let s3 = embedded::serve(&dir.private_dir("s3")?, s3_addr, &secrets.s3_credentials())
            .await
            .context("cannot start the S3 server")?;
        let cluster = Cluster::open(dir)?;
        let postgres = {
            let cluster = cluster.clone();
            let start = move || {
                let cluster = cluster.clone();
                async move { cluster.start().await }
            };
            Supervised::start("postgres", postgres::STOP_SIGNAL, start).await?
        };
        let storage = Self {
            dir: dir.clone(),
            secrets,
            cluster,
            postgres,
            s3,
            _lock: lock,
        };
        match storage.prepare().await {
            Ok(()) => Ok(storage),
            Err(error) => {
                storage.stop().await;
                Err(error)
            }
        }
    }

    async fn prepare(&self) -> Result<()> {
        let reach = self.reach();
        SharedObjects::connect(&reach.s3).ensure_bucket().await?;
        registry::prepare(&reach.admin_url, &FirstKeys::from(&self.secrets)).await?;
        self.dir.set_running(&Running {
            pid: std::process::id(),
            socket_dir: self.cluster.socket_dir().to_owned(),
            s3_endpoint: self.s3.endpoint(),
        })
    }

    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub fn reach(&self) -> Reach {
        Reach {
            admin_url: self.cluster.admin_url(),
            s3: self.s3.config(BUCKET),
        }
    }

    /// What the API is started with, but for the address of the inference service.
    pub fn api_environment(&self) -> Environment {
        let mut environment = self.environment(API_LOGIN);
        environment.insert("ATTUNE_KEY_PEPPER", self.secrets.key_pepper.clone());
        environment.insert("ATTUNE_INTERNAL_TOKEN", self.secrets.internal_token.clone());
        environment.insert("ATTUNE_SWEEP_DATABASE_URL", self.cluster.url(WORKER_LOGIN));
        environment
    }

    pub fn worker_environment(&self) -> Environment {
        self.environment(WORKER_LOGIN)
    }

    pub fn inference_environment(&self) -> Environment {
        let mut environment = self.environment(INFERENCE_LOGIN);
        environment.insert("ATTUNE_INTERNAL_TOKEN", self.secrets.internal_token.clone());
        environment
    }

    /// What every service needs.
    fn environment(&self, login: &str) -> Environment {
        let S3Config {
            endpoint,
            region,
            bucket,
            access_key_id,
            secret_access_key,
            ..
        } = self.s3.config(BUCKET);
        BTreeMap::from([
            ("DATABASE_URL", self.cluster.url(login)),
            ("ATTUNE_S3_ENDPOINT", endpoint),
            ("ATTUNE_S3_REGION", region),
            ("ATTUNE_S3_BUCKET", bucket),
            ("ATTUNE_S3_ACCESS_KEY_ID", access_key_id),
            ("ATTUNE_S3_SECRET_ACCESS_KEY", secret_access_key),
            ("ATTUNE_SECRET_KEYS", self.secrets.secret_keys.clone()),
            (
                "ATTUNE_CACHE_DIR",
                self.dir.path("cache").display().to_string(),
            ),
        ])
    }

    /// Stops S3, then Postgres, each after what it was doing.
    pub async fn stop(self) {
        // First, so that nobody is sent to servers on their way out.
        if let Err(error) = self.dir.clear_running() {
            tracing::warn!("{error:#}");
        }
        self.s3.shutdown().await;
        self.postgres.stop().await;
    }
}

impl Reach {
    /// Storage that another process runs in this data directory.
    ///
    /// # Errors
    ///
    /// When its secrets cannot be read.
    pub fn of_running(dir: &DataDir, running: &Running) -> Result<Self> {
        let secrets = Secrets::open(dir)?;
        let s3 = S3Config {
            endpoint: running.s3_endpoint.clone(),
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            prefix: String::new(),
            path_style: true,
            access_key_id: secrets.s3_access_key_id,
            secret_access_key: secrets.s3_secret_access_key,
        };
        Ok(Self {
            admin_url: postgres::admin_url(&running.socket_dir),
            s3,
        })
    }
}

/// `export NAME='value'` lines, for a shell.
pub fn exports(environment: &Environment) -> String {
    environment
        .iter()
        .map(|(name, value)| export(name, value))
        .collect()
}

/// One such line.
pub fn export(name: &str, value: &str) -> String {
    // Inside single quotes a shell leaves everything alone but the quote itself.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=".contains(c);
    if value.chars().all(plain) {
        format!("export {name}={value}\n")
    } else {
        format!("export {name}='{}'\n", value.replace('\'', r"'\''"))
    }
}

/// Storage for the length of one command: that of a running process, or our own.
pub enum Visit {
    Running(Reach),
    Own(Box<Storage>),
}

impl Visit {
    /// # Errors
    ///
    /// When neither can be had.
    pub async fn open(data_dir: Option<&Path>) -> Result<Self> {
        if let (None, Ok(admin_url)) = (data_dir, std::env::var("ATTUNE_MIGRATE_URL")) {
            let s3 = S3Config::from_env()?;
            return Ok(Self::Running(Reach { admin_url, s3 }));
        }
        let dir = DataDir::open(data_dir)?;
        // A process that has the lock may still be on its way up.
        for _ in 0..600 {
            if let Some(lock) = dir.try_lock()? {
                return Ok(Self::Own(Box::new(Storage::start(&dir, lock, 0).await?)));
            }
            if let Some(running) = dir.running()? {
                return Ok(Self::Running(Reach::of_running(&dir, &running)?));
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        anyhow::bail!(
            "the process that uses `{}` did not come up",
            dir.root().display()
        )
    }

    pub fn reach(&self) -> Reach {
        match self {
            Self::Running(reach) => reach.clone(),
            Self::Own(storage) => storage.reach(),
        }
    }

    pub async fn close(self) {
        if let Self::Own(storage) = self {
            storage.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_shell() {
        let line = export("NAME", "it's $HOME & more");
        let output = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("{line}printf %s \"$NAME\""))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "it's $HOME & more"
        );
    }

    #[test]
    fn a_plain_value_is_not_quoted() {
        assert_eq!(
            export("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
            "export OPENAI_BASE_URL=http://127.0.0.1:8080/v1\n"
        );
    }
}

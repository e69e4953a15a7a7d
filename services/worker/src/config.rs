//! The worker's settings, from the environment.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use artifacts::S3Config;
use store::sealed::Keyring;
use training::report::Code;

/// The lease of a job that is being worked on, unless the environment sets another.
const DEFAULT_LEASE_SECS: u64 = 60;

/// Less than what an orchestrator usually gives, so that the job is handed back before the kill.
const DEFAULT_GRACE_SECS: u64 = 25;

/// How long an idle worker waits before it looks again, unless the environment sets another or something wakes it.
const DEFAULT_POLL_SECS: u64 = 1;

/// What a worker needs to know.
#[derive(Clone)]
pub struct Config {
    /// The login `attune_worker`.
    pub database_url: String,
    /// The installation's bucket.
    pub s3: S3Config,
    /// What opens the credentials of projects' own buckets. Without it their jobs fail.
    pub keyring: Option<Keyring>,
    /// Where base models are kept and attempts work. Nothing in it is missed when it is gone.
    pub cache_dir: PathBuf,
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Shown in the queue and in logs.
    pub name: String,
    /// A job whose worker has not been heard of for this long is given to another.
    pub lease_secs: u64,
    /// A job that would need more memory for the whole process is refused; what the machine has free bounds it in any case.
    pub max_memory_bytes: Option<u64>,
    /// What a job may need at least for this worker to take it up: memory of the machine or of its GPU.
    pub memory_bytes: u64,
    /// How long a job may take to write its checkpoint once the worker is asked to go. Then it is handed back without one.
    pub grace_secs: u64,
    /// How long an idle worker waits before it looks for a job again, if nothing wakes it.
    pub poll_secs: u64,
    /// The program, as a job's report names it.
    pub code: Code,
}

impl Config {
    /// Reads `DATABASE_URL`, `ATTUNE_S3_*`, `ATTUNE_SECRET_KEYS` or `ATTUNE_SECRET_KEYS_FILE`, `ATTUNE_CACHE_DIR`,
    /// `ATTUNE_DEVICE`, `ATTUNE_WORKER_NAME`, `ATTUNE_LEASE_SECS`, `ATTUNE_MAX_MEMORY_MB`, `ATTUNE_WORKER_MEMORY_BYTES`
    /// (the machine's unless set: with a GPU, set it to the GPU's), `ATTUNE_WORKER_GRACE_SECS` and
    /// `ATTUNE_WORKER_POLL_SECS`. `code` is the program that asks.
    ///
    /// # Errors
    /// Names the variable that is missing or wrong.
    pub fn from_env(code: Code) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str, what: &str| {
            variable(name)
                .map(|text| {
                    let parsed = text.parse::<u64>();
                    parsed.with_context(|| format!("{name} must be a whole number of {what}"))
                })
                .transpose()
        };
        let lease_secs = number("ATTUNE_LEASE_SECS", "seconds")?;
        let max_memory_mb = number("ATTUNE_MAX_MEMORY_MB", "megabytes")?;
        let memory_bytes = number("ATTUNE_WORKER_MEMORY_BYTES", "bytes")?;
        let grace_secs = number("ATTUNE_WORKER_GRACE_SECS", "seconds")?;
        let poll_secs = number("ATTUNE_WORKER_POLL_SECS", "seconds")?;
        Ok(Self {
            database_url: variable("DATABASE_URL").context("DATABASE_URL is not set")?,
            s3: S3Config::from_env()?,
            keyring: Keyring::from_variables(variable)?,
            cache_dir: variable("ATTUNE_CACHE_DIR")
                .map_or_else(|| std::env::temp_dir().join("attune-worker"), PathBuf::from),
            device: variable("ATTUNE_DEVICE").unwrap_or_else(|| "cpu".to_owned()),
            name: variable("ATTUNE_WORKER_NAME")
                .unwrap_or_else(|| format!("worker-{}", std::process::id())),
            lease_secs: lease_secs.unwrap_or(DEFAULT_LEASE_SECS).max(3),
            max_memory_bytes: max_memory_mb.map(|mb| mb.saturating_mul(1_000_000)),
            // Where nobody can say how much there is, the estimate before training decides alone.
            memory_bytes: memory_bytes
                .or_else(training::memory::machine_bytes)
                .unwrap_or(u64::MAX)
                .min(i64::MAX as u64),
            grace_secs: grace_secs.unwrap_or(DEFAULT_GRACE_SECS),
            // Without a pause it would ask as fast as the database answers.
            poll_secs: poll_secs.unwrap_or(DEFAULT_POLL_SECS).max(1),
            code,
        })
    }

    /// Where attempts work.
    pub(crate) fn attempts_dir(&self) -> PathBuf {
        self.cache_dir.join("attempts")
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_secs)
    }

    pub(crate) fn poll(&self) -> Duration {
        Duration::from_secs(self.poll_secs)
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_secs)
    }
}

//! `attune migrate`: what a production installation needs once per release, before its services start.

use std::env;

use anyhow::{Context, Result};
use artifacts::{S3Config, SharedObjects};
use store::migrate::{LoginPasswords, set_login_passwords};

use crate::registry::{self, FirstKeys};

/// Brings the schema up to date, sets the passwords of the services' logins, and makes the first project and the bucket.
///
/// # Errors
///
/// Names the variable that is missing; or the database cannot be reached or refuses.
pub async fn run() -> Result<()> {
    let admin_url = required("ATTUNE_MIGRATE_URL")?;
    let keys = FirstKeys {
        pepper: required("ATTUNE_KEY_PEPPER")?,
        api_key: required("ATTUNE_API_KEY")?,
        admin_key: required("ATTUNE_ADMIN_KEY")?,
    };
    let passwords = LoginPasswords {
        api: required("ATTUNE_API_PASSWORD")?,
        worker: required("ATTUNE_WORKER_PASSWORD")?,
        inference: required("ATTUNE_INFERENCE_PASSWORD")?,
    };
    registry::prepare(&admin_url, &keys).await?;
    set_login_passwords(&admin_url, &passwords)
        .await
        .context("cannot set the passwords of the services' logins")?;
    SharedObjects::connect(&S3Config::from_env()?)
        .ensure_bucket()
        .await?;
    tracing::info!("Database and bucket are up to date");
    Ok(())
}

fn required(name: &'static str) -> Result<String> {
    env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .with_context(|| format!("{name} is not set"))
}

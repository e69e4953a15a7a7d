//! `attune admin secrets`: the key that tenants' secrets are sealed with.

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;
use store::sealed::{self, Keyring};

use super::installation::Installation;
use super::{Answer, Common};

/// Arguments of `attune admin secrets`.
#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// Seal everything again with the first key, so that the others may go
    Rotate {
        #[command(flatten)]
        common: Common,
    },
}

impl SecretsCommand {
    pub(super) fn common(&self) -> &Common {
        let Self::Rotate { common } = self;
        common
    }
}

/// Works in transactions of its own: what is done stays done if it is broken off.
pub(super) async fn act(command: &SecretsCommand, installation: &Installation) -> Result<Answer> {
    let SecretsCommand::Rotate { .. } = command;
    let keyring = keyring(installation.secret_keys.as_deref())?;
    let resealed = sealed::rotate(&installation.store, &keyring)
        .await
        .context("not every secret could be sealed again; what was, is")?;
    let key = keyring.current_id();
    let json = json!({"key": key, "resealed": resealed});
    let text = format!("Sealed {resealed} secrets again with the key `{key}`");
    Ok(Answer::new(json, text))
}

/// Those of the data directory, or of the environment.
pub(super) fn keyring(of_directory: Option<&str>) -> Result<Keyring> {
    if let Some(keys) = of_directory {
        return Ok(Keyring::parse(keys)?);
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Keyring::from_settings(
        variable("ATTUNE_SECRET_KEYS").as_deref(),
        variable("ATTUNE_SECRET_KEYS_FILE").as_deref(),
    )?
    .context("neither ATTUNE_SECRET_KEYS nor ATTUNE_SECRET_KEYS_FILE is set")
}

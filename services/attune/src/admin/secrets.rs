//! `attune admin secrets`: the key that tenants' secrets are sealed with.

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;
use store::sealed;

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
    let keyring = installation.keyring()?;
    let resealed = sealed::rotate(&installation.store, &keyring)
        .await
        .context("not every secret could be sealed again; what was, is")?;
    let key = keyring.current_id();
    let json = json!({"key": key, "resealed": resealed});
    let text = format!("Sealed {resealed} secrets again with the key `{key}`");
    Ok(Answer::new(json, text))
}

//! `attune admin secrets`: the key that tenants' secrets are sealed with.

use anyhow::{Context, Result};
use clap::Subcommand;
use domain::Clock;
use serde_json::json;
use store::audit::Act;
use store::{organizations, sealed};

use super::installation::Installation;
use super::{Answer, Common, record};

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

/// Works in transactions of its own: what is done stays done if it is broken off, and stands in every organization's log.
pub(super) async fn act(command: &SecretsCommand, installation: &Installation) -> Result<Answer> {
    let SecretsCommand::Rotate { .. } = command;
    let keyring = installation.keyring()?;
    let key = keyring.current_id();
    let resealed = sealed::rotate(&installation.store, &keyring).await;
    let details = json!({"complete": resealed.is_ok()});
    let act = Act::new("secrets.rotated", "installation.key", key).details(details);
    write_down(&act, installation).await?;
    let resealed = resealed.context("not every secret could be sealed again; what was, is")?;
    let json = json!({"key": key, "resealed": resealed});
    let text = format!("Sealed {resealed} secrets again with the key `{key}`");
    Ok(Answer::new(json, text))
}

/// A transaction for each: none holds the ends of two logs.
async fn write_down(act: &Act, installation: &Installation) -> Result<()> {
    let mut tx = installation.store.operator_tx().await?;
    let organizations = organizations::list(&mut tx).await?;
    tx.commit().await?;
    for org in organizations {
        let mut tx = installation.store.operator_tx().await?;
        record(&mut tx, org.id, act, Clock::system().now()).await?;
        tx.commit().await?;
    }
    Ok(())
}

//! `attune admin org`.

use anyhow::{Result, ensure};
use clap::Subcommand;
use serde_json::json;
use store::OperatorTx;
use store::api_keys::{self, NewApiKey};
use store::organizations;
use time::OffsetDateTime;

use super::installation::{Installation, organization};
use super::{Answer, Common};

/// Arguments of `attune admin org`.
#[derive(Debug, Subcommand)]
pub enum OrgCommand {
    /// Make an organization and an admin key for it, which is shown this once
    Create {
        /// What people call it. What its models are called follows from this
        #[arg(long)]
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Show the organizations
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Let none of an organization's keys and users in any more; what it holds stays
    Revoke {
        /// The organization, by id or slug
        org: String,
        #[command(flatten)]
        common: Common,
    },
}

impl OrgCommand {
    pub(super) fn common(&self) -> &Common {
        match self {
            Self::Create { common, .. } | Self::List { common } | Self::Revoke { common, .. } => {
                common
            }
        }
    }
}

pub(super) async fn act(
    command: &OrgCommand,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    match command {
        OrgCommand::Create { name, .. } => create(name, tx, installation, now).await,
        OrgCommand::List { .. } => {
            let listed = organizations::list(tx).await?.into_iter().map(|org| {
                let json = json!({"org_id": org.id, "slug": org.slug, "name": org.name});
                (json, format!("{}  {}  {}", org.id, org.slug, org.name))
            });
            Ok(Answer::list(listed.collect(), "No organizations"))
        }
        OrgCommand::Revoke { org, .. } => {
            let org = organization(tx, org).await?;
            let done = organizations::archive(tx, org.id, now).await?;
            ensure!(done, "the organization `{}` was revoked before", org.slug);
            let json = json!({"org_id": org.id, "revoked": true});
            Ok(Answer::new(json, format!("Revoked `{}`", org.slug)))
        }
    }
}

async fn create(
    name: &str,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    ensure!(!name.trim().is_empty(), "an organization needs a name");
    let org = organizations::create_named(tx, name.trim(), now).await?;
    let key = NewApiKey {
        org_id: org.id,
        project_id: None,
        name: "admin".to_owned(),
        expires_at: None,
    };
    let (_, secret) = api_keys::create(tx, installation.pepper()?, &key, now).await?;
    let json = json!({"org_id": org.id, "slug": org.slug, "admin_key": secret.expose()});
    let text = format!(
        "Made the organization `{}` ({})\nAdmin key, shown this once: {}",
        org.slug,
        org.id,
        secret.expose()
    );
    Ok(Answer::new(json, text))
}

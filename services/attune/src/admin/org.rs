//! `attune admin org`.

use anyhow::{Result, ensure};
use clap::Subcommand;
use serde_json::json;
use store::OperatorTx;
use store::api_keys::{self, KeyAct, NewApiKey};
use store::audit::Act;
use store::{organizations, projects};
use time::OffsetDateTime;

use super::installation::{Installation, organization};
use super::{Answer, Common, project, record};

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
    /// Let none of an organization's keys and users in any more and cancel its work; what it holds stays
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
    mut tx: OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<(OperatorTx, Answer)> {
    let answer = match command {
        OrgCommand::Create { name, .. } => create(name, &mut tx, installation, now).await?,
        OrgCommand::List { .. } => {
            let listed = organizations::list(&mut tx).await?.into_iter().map(|org| {
                let json = json!({"org_id": org.id, "slug": org.slug, "name": org.name});
                (json, format!("{}  {}  {}", org.id, org.slug, org.name))
            });
            Answer::list(listed.collect(), "No organizations")
        }
        OrgCommand::Revoke { org, .. } => return revoke(org, tx, now).await,
    };
    Ok((tx, answer))
}

/// With every project, so that no work of theirs goes on.
async fn revoke(
    name: &str,
    mut tx: OperatorTx,
    now: OffsetDateTime,
) -> Result<(OperatorTx, Answer)> {
    let org = organization(&mut tx, name).await?;
    let done = organizations::archive(&mut tx, org.id, now).await?;
    ensure!(done, "the organization `{}` was revoked before", org.slug);
    for open in projects::list_open(&mut tx, org.id).await? {
        (tx, _) = project::archive(tx, org.id, open, now).await?;
    }
    let act = Act::new("organization.archived", "organization", org.id);
    record(&mut tx, org.id, &act, now).await?;
    let json = json!({"org_id": org.id, "revoked": true});
    Ok((tx, Answer::new(json, format!("Revoked `{}`", org.slug))))
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
    let (key, secret) = api_keys::create(tx, installation.pepper()?, &key, now).await?;
    let act = Act::new("organization.created", "organization", org.id);
    record(tx, org.id, &act, now).await?;
    record(tx, org.id, &key.act(KeyAct::Created), now).await?;
    let json = json!({"org_id": org.id, "slug": org.slug, "admin_key": secret.expose()});
    let text = format!(
        "Made the organization `{}` ({})\nAdmin key, shown this once: {}",
        org.slug,
        org.id,
        secret.expose()
    );
    Ok(Answer::new(json, text))
}

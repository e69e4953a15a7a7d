//! `attune admin project`.

use anyhow::{Result, ensure};
use clap::Subcommand;
use serde_json::json;
use store::OperatorTx;
use store::api_keys::{self, NewApiKey};
use store::organizations::Organization;
use store::projects;
use time::OffsetDateTime;

use super::installation::{Installation, organization, project};
use super::limits::{self, LimitArgs};
use super::{Answer, Common, Within};

/// Projects of one page, and so of one list: nobody reads more at a time.
pub(super) const MAX_LISTED: u32 = 10_000;

/// Arguments of `attune admin project`.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Make a project and a key that opens it, which is shown this once
    Create {
        /// What people call it
        #[arg(long)]
        name: String,
        #[command(flatten)]
        within: Within,
    },
    /// Show an organization's projects
    List {
        #[command(flatten)]
        within: Within,
    },
    /// Show or change what a project may use at most
    Limits {
        /// The project, by id or slug
        project: String,
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        within: Within,
    },
    /// Let nobody into a project any more; what it holds stays
    Revoke {
        /// The project, by id or slug
        project: String,
        #[command(flatten)]
        within: Within,
    },
}

impl ProjectCommand {
    fn within(&self) -> &Within {
        match self {
            Self::Create { within, .. }
            | Self::List { within }
            | Self::Limits { within, .. }
            | Self::Revoke { within, .. } => within,
        }
    }

    pub(super) fn common(&self) -> &Common {
        &self.within().common
    }
}

pub(super) async fn act(
    command: &ProjectCommand,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    let org = organization(tx, &command.within().org).await?;
    match command {
        ProjectCommand::Create { name, .. } => create(name, &org, tx, installation, now).await,
        ProjectCommand::List { .. } => {
            let page = projects::list(tx, org.id, false, None, MAX_LISTED).await?;
            let listed = page.data.into_iter().map(|listed| {
                let project = listed.project;
                let json =
                    json!({"project_id": project.id, "slug": project.slug, "name": project.name});
                let text = format!("{}  {}  {}", project.id, project.slug, project.name);
                (json, text)
            });
            Ok(Answer::list(listed.collect(), "No projects"))
        }
        ProjectCommand::Limits {
            project: name,
            limits,
            ..
        } => {
            let found = project(tx, &org, name).await?;
            limits::act(limits, tx, &org, found.project.id, now).await
        }
        ProjectCommand::Revoke { project: name, .. } => {
            let found = project(tx, &org, name).await?;
            ensure!(
                found.archived_at.is_none(),
                "the project `{name}` was revoked before"
            );
            projects::archive(tx, org.id, found.project.id, now).await?;
            let json = json!({"project_id": found.project.id, "revoked": true});
            Ok(Answer::new(json, format!("Revoked `{name}`")))
        }
    }
}

async fn create(
    name: &str,
    org: &Organization,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    ensure!(!name.trim().is_empty(), "a project needs a name");
    let project = projects::create_named(tx, org.id, name.trim(), now).await?;
    let key = NewApiKey {
        org_id: org.id,
        project_id: Some(project.id),
        name: "first".to_owned(),
        expires_at: None,
    };
    let (_, secret) = api_keys::create(tx, installation.pepper()?, &key, now).await?;
    let json = json!({"project_id": project.id, "api_key": secret.expose()});
    let text = format!(
        "Made the project `{}` ({}) in `{}`\nAPI key, shown this once: {}",
        project.slug,
        project.id,
        org.slug,
        secret.expose()
    );
    Ok(Answer::new(json, text))
}

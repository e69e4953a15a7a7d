//! `attune admin project`.

use anyhow::{Context, Result, ensure};
use artifacts::keys;
use clap::{Subcommand, ValueEnum};
use domain::{OrgId, ProjectId};
use serde_json::json;
use store::OperatorTx;
use store::api_keys::{self, KeyAct, NewApiKey};
use store::archiving::{self, Stopped};
use store::audit::Act;
use store::organizations::Organization;
use store::projects;
use time::OffsetDateTime;

use super::bucket::BucketCommand;
use super::installation::{Installation, open_project, organization, project};
use super::limits::{self, LimitArgs};
use super::wandb::{self, WandbCommand};
use super::{Answer, Common, Within, record};

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
    /// Change how a project is answered
    Settings {
        /// The project, by id or slug
        project: String,
        /// Whether every answer keeps to the words of OpenAI's own enumerations, for strict clients: a paused job is
        /// shown as `queued` then
        #[arg(long, value_name = "on|off")]
        speaks_openai: Switch,
        #[command(flatten)]
        within: Within,
    },
    /// The account that a project's jobs report to Weights & Biases with
    #[command(subcommand)]
    Wandb(WandbCommand),
    /// Keep a project's objects in a bucket of its own
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Let nobody into a project any more and cancel its work; what it holds stays
    Revoke {
        /// The project, by id or slug
        project: String,
        #[command(flatten)]
        within: Within,
    },
}

/// `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl ProjectCommand {
    fn within(&self) -> &Within {
        match self {
            Self::Create { within, .. }
            | Self::List { within }
            | Self::Limits { within, .. }
            | Self::Settings { within, .. }
            | Self::Revoke { within, .. } => within,
            Self::Wandb(command) => command.within(),
            Self::Bucket(command) => command.within(),
        }
    }

    pub(super) fn common(&self) -> &Common {
        &self.within().common
    }
}

pub(super) async fn act(
    command: &ProjectCommand,
    mut tx: OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<(OperatorTx, Answer)> {
    let org = organization(&mut tx, &command.within().org).await?;
    let answer = match command {
        ProjectCommand::Create { name, .. } => {
            create(name, &org, &mut tx, installation, now).await?
        }
        ProjectCommand::List { .. } => {
            let page = projects::list(&mut tx, org.id, false, None, MAX_LISTED).await?;
            let listed = page.data.into_iter().map(|listed| {
                let project = listed.project;
                let json =
                    json!({"project_id": project.id, "slug": project.slug, "name": project.name});
                let text = format!("{}  {}  {}", project.id, project.slug, project.name);
                (json, text)
            });
            Answer::list(listed.collect(), "No projects")
        }
        ProjectCommand::Limits {
            project: name,
            limits,
            ..
        } => {
            let found = project(&mut tx, &org, name).await?;
            limits::act(limits, &mut tx, &org, found.project.id, now).await?
        }
        ProjectCommand::Settings {
            project: name,
            speaks_openai,
            ..
        } => {
            let id = open_project(&mut tx, &org, name).await?.project.id;
            speak_openai(&mut tx, &org, id, *speaks_openai, now).await?
        }
        ProjectCommand::Wandb(command) => {
            wandb::act(command, &org, &mut tx, installation, now).await?
        }
        ProjectCommand::Bucket(_) => unreachable!("it has transactions of its own"),
        ProjectCommand::Revoke { project: name, .. } => {
            return revoke(name, &org, tx, now).await;
        }
    };
    Ok((tx, answer))
}

async fn revoke(
    name: &str,
    org: &Organization,
    mut tx: OperatorTx,
    now: OffsetDateTime,
) -> Result<(OperatorTx, Answer)> {
    let id = project(&mut tx, org, name).await?.project.id;
    let (tx, stopped) = archive(tx, org.id, id, now).await?;
    let stopped = stopped.with_context(|| format!("the project `{name}` was revoked before"))?;
    let json = json!({
        "project_id": id,
        "revoked": true,
        "cancelled_jobs": stopped.n_jobs,
        "cancelled_batches": stopped.n_batches,
        "cancelled_uploads": stopped.n_uploads,
    });
    let text = format!(
        "Revoked `{name}`, and cancelled {} jobs, {} batches and {} uploads",
        stopped.n_jobs, stopped.n_batches, stopped.n_uploads
    );
    Ok((tx, Answer::new(json, text)))
}

/// Ends a project with all that it has under way, and writes it down. None if it was over before.
pub(super) async fn archive(
    tx: OperatorTx,
    org_id: OrgId,
    id: ProjectId,
    now: OffsetDateTime,
) -> Result<(OperatorTx, Option<Stopped>)> {
    let archived = archiving::archive(tx, org_id, id, keys::upload_prefix, now);
    let (mut tx, stopped) = archived.await?;
    if let Some(stopped) = stopped {
        record(&mut tx, org_id, &stopped.act(id), now).await?;
    }
    Ok((tx, stopped))
}

async fn speak_openai(
    tx: &mut OperatorTx,
    org: &Organization,
    id: ProjectId,
    wished: Switch,
    now: OffsetDateTime,
) -> Result<Answer> {
    let only = wished == Switch::On;
    projects::set_speaks_openai(tx, id, only).await?;
    let act = Act::new("project.updated", "organization.project", id).project(id);
    let act = act.details(json!({"speaks_openai": only}));
    record(tx, org.id, &act, now).await?;
    let text = if only {
        format!("`{id}` is answered in OpenAI's own words only")
    } else {
        format!("`{id}` is answered in all words, OpenAI's and ours")
    };
    Ok(Answer::new(
        json!({"project_id": id, "speaks_openai": only}),
        text,
    ))
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
    let (key, secret) = api_keys::create(tx, installation.pepper()?, &key, now).await?;
    let act = Act::new("project.created", "organization.project", project.id);
    record(tx, org.id, &act.project(project.id), now).await?;
    record(tx, org.id, &key.act(KeyAct::Created), now).await?;
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

//! `attune admin`: organizations, projects, users, service accounts and keys of an installation, for whoever runs it.
//!
//! Works on the installation that `--data-dir` names, beside a running `attune up` or by itself, or on the database
//! that `DATABASE_URL` names with a login that may do all this. Answers go to standard output, with `--json` exactly
//! one JSON document; everything else goes to standard error.

mod audit;
mod bucket;
mod installation;
mod key;
mod limits;
mod org;
mod project;
mod secret_file;
mod secrets;
mod service_account;
mod user;
mod wandb;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use domain::{Clock, OrgId};
use serde_json::Value;
use store::OperatorTx;
use store::audit::{Act, Actor};
use time::OffsetDateTime;

use self::installation::Installation;
use crate::print;

/// Arguments of `attune admin`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// The customers of the installation
    #[command(subcommand)]
    Org(org::OrgCommand),
    /// The projects of an organization: its tenants
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// The people of an organization
    #[command(subcommand)]
    User(user::UserCommand),
    /// The programs that work in a project
    #[command(subcommand)]
    ServiceAccount(service_account::ServiceAccountCommand),
    /// The keys that open a project or administer an organization
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Who did what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// What tenants' secrets are sealed with
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
}

/// What every one of these commands takes.
#[derive(Debug, Args)]
pub struct Common {
    /// The installation
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
}

/// What those that act within an organization take.
#[derive(Debug, Args)]
pub struct Within {
    /// The organization, by id or slug
    #[arg(long, value_name = "ORG", default_value = "default")]
    org: String,
    #[command(flatten)]
    common: Common,
}

/// What a command found or made: for programs, and for people.
struct Answer {
    json: Value,
    text: String,
}

impl Answer {
    fn new(json: Value, text: impl Into<String>) -> Self {
        Self {
            json,
            text: text.into(),
        }
    }

    /// A line per element; `empty` where there is none.
    fn list(elements: Vec<(Value, String)>, empty: &str) -> Self {
        let (json, lines): (Vec<_>, Vec<_>) = elements.into_iter().unzip();
        let text = if lines.is_empty() {
            empty.to_owned()
        } else {
            lines.join("\n")
        };
        Self::new(Value::Array(json), text)
    }
}

/// Runs one of the commands.
///
/// # Errors
///
/// Whatever went wrong, with the installation or the thing named. Nothing was changed then.
pub async fn run(command: AdminCommand) -> Result<()> {
    let common = match &command {
        AdminCommand::Org(command) => command.common(),
        AdminCommand::Project(command) => command.common(),
        AdminCommand::User(command) => command.common(),
        AdminCommand::ServiceAccount(command) => command.common(),
        AdminCommand::Key(command) => command.common(),
        AdminCommand::Audit(command) => command.common(),
        AdminCommand::Secrets(command) => command.common(),
    };
    let as_json = common.json;
    let installation = Installation::open(common.data_dir.as_deref()).await?;
    let answer = match &command {
        AdminCommand::Audit(command) => audit::act(command, &installation.store).await,
        AdminCommand::Secrets(command) => secrets::act(command, &installation).await.map(Some),
        AdminCommand::Project(project::ProjectCommand::Bucket(command)) => {
            bucket::act(command, &installation).await.map(Some)
        }
        command => act(command, &installation).await.map(Some),
    };
    installation.close().await;
    let Some(Answer { json, text }) = answer? else {
        return Ok(());
    };
    print::line(&if as_json { json.to_string() } else { text });
    Ok(())
}

/// Who is at this terminal, as the audit log writes it.
fn operator(org_id: OrgId) -> Actor {
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    let name = name.unwrap_or_else(|_| "operator".to_owned());
    Actor {
        org_id,
        kind: "operator".to_owned(),
        id: name.clone(),
        name,
        key_id: None,
        address: None,
        request_id: None,
    }
}

/// One transaction, the rows of the audit log included: what fails half-way leaves nothing.
async fn act(command: &AdminCommand, installation: &Installation) -> Result<Answer> {
    let mut tx = installation.store.operator_tx().await?;
    let now = Clock::system().now();
    let (tx, answer) = match command {
        AdminCommand::Org(command) => org::act(command, tx, installation, now).await?,
        AdminCommand::Project(command) => project::act(command, tx, installation, now).await?,
        AdminCommand::User(command) => {
            let answer = user::act(command, &mut tx, now).await?;
            (tx, answer)
        }
        AdminCommand::ServiceAccount(command) => {
            let answer = service_account::act(command, &mut tx, installation, now).await?;
            (tx, answer)
        }
        AdminCommand::Key(command) => {
            let answer = key::act(command, &mut tx, installation, now).await?;
            (tx, answer)
        }
        AdminCommand::Audit(_) | AdminCommand::Secrets(_) => {
            unreachable!("they have transactions of their own")
        }
    };
    tx.commit().await?;
    Ok(answer)
}

/// Writes down what the operator did in an organization.
async fn record(tx: &mut OperatorTx, org_id: OrgId, act: &Act, now: OffsetDateTime) -> Result<()> {
    Ok(store::audit::record(tx, &operator(org_id), act, now).await?)
}

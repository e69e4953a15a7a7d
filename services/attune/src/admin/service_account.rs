//! `attune admin service-account`.

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use domain::{ProjectId, Role, Scope, ServiceAccountId};
use serde_json::{Value, json};
use store::OperatorTx;
use store::api_keys::{self, ApiKey, KeyAct, NewApiKey, Rights, Secret};
use store::organizations::Organization;
use store::service_accounts::{self, AccountAct, FIRST_KEY, ServiceAccount};
use time::OffsetDateTime;

use super::installation::{Installation, open_project, organization, project};
use super::key::expiry;
use super::project::MAX_LISTED;
use super::{Answer, Common, Within, record};

/// Arguments of `attune admin service-account`.
#[derive(Debug, Subcommand)]
pub enum ServiceAccountCommand {
    /// Make a service account and a key for it, which is shown this once
    Create(CreateArgs),
    /// Show a project's service accounts
    List {
        /// The project, by id or slug
        #[arg(long)]
        project: String,
        #[command(flatten)]
        within: Within,
    },
    /// Refuse a service account and all its keys from now on
    Revoke {
        /// The service account's id, `svc_acct_…`
        account: ServiceAccountId,
        /// Its project, by id or slug
        #[arg(long)]
        project: String,
        #[command(flatten)]
        within: Within,
    },
}

/// Arguments of `attune admin service-account create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What people call it
    #[arg(long)]
    name: String,
    /// The project that it works in, by id or slug
    #[arg(long)]
    project: String,
    /// What it may do there: `owner`, `member` or `viewer`
    #[arg(long, default_value = "member")]
    role: Role,
    /// Make no key yet: `attune admin key create --service-account` does it later
    #[arg(long)]
    no_key: bool,
    /// What its key is limited to: `files`, `jobs`, `inference`, `read_only`, or several with commas between
    #[arg(long, value_delimiter = ',', conflicts_with = "no_key")]
    scopes: Vec<Scope>,
    /// After how many seconds its key expires; without this it does not
    #[arg(long, value_name = "SECONDS", conflicts_with = "no_key", value_parser = clap::value_parser!(u32).range(1..))]
    expires_in: Option<u32>,
    #[command(flatten)]
    within: Within,
}

impl ServiceAccountCommand {
    fn within(&self) -> &Within {
        match self {
            Self::Create(CreateArgs { within, .. })
            | Self::List { within, .. }
            | Self::Revoke { within, .. } => within,
        }
    }

    pub(super) fn common(&self) -> &Common {
        &self.within().common
    }
}

pub(super) async fn act(
    command: &ServiceAccountCommand,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    let org = organization(tx, &command.within().org).await?;
    match command {
        ServiceAccountCommand::Create(args) => create(args, &org, tx, installation, now).await,
        ServiceAccountCommand::List { project: name, .. } => {
            let project = project(tx, &org, name).await?.project.id;
            let page = service_accounts::list(tx, org.id, project, None, MAX_LISTED).await?;
            let listed = page.data.into_iter().map(|account| {
                let line = format!("{}  {}  {}", account.id, account.role, account.name);
                (shown(&account), line)
            });
            Ok(Answer::list(listed.collect(), "No service accounts"))
        }
        ServiceAccountCommand::Revoke {
            account: id,
            project: name,
            ..
        } => {
            let project = project(tx, &org, name).await?.project.id;
            let account = service_account(tx, &org, project, *id).await?;
            service_accounts::delete(tx, org.id, project, *id, now).await?;
            record(tx, org.id, &account.act(AccountAct::Deleted), now).await?;
            let json = json!({"service_account_id": id, "revoked": true});
            Ok(Answer::new(json, format!("Revoked `{id}` and its keys")))
        }
    }
}

/// The project's service account.
pub(super) async fn service_account(
    tx: &mut OperatorTx,
    org: &Organization,
    project: ProjectId,
    id: ServiceAccountId,
) -> Result<ServiceAccount> {
    let found = service_accounts::find(tx, org.id, project, id).await?;
    found.with_context(|| {
        format!(
            "the project has no service account `{id}`: `attune admin service-account list` shows which it has"
        )
    })
}

async fn create(
    args: &CreateArgs,
    org: &Organization,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    ensure!(
        !args.name.trim().is_empty(),
        "a service account needs a name"
    );
    let account = ServiceAccount {
        id: ServiceAccountId::new(),
        project_id: open_project(tx, org, &args.project).await?.project.id,
        org_id: org.id,
        name: args.name.trim().to_owned(),
        role: args.role,
        created_at: now,
    };
    service_accounts::create(tx, &account).await?;
    let made = if args.no_key {
        None
    } else {
        Some(first_key(args, &account, tx, installation, now).await?)
    };
    let key = made.as_ref().map(|(key, _)| key);
    let act = account.act(AccountAct::Created(key.map(|key| key.id)));
    record(tx, org.id, &act, now).await?;
    if let Some(key) = key {
        record(tx, org.id, &key.act(KeyAct::Created), now).await?;
    }
    let secret = made.as_ref().map(|(_, secret)| secret.expose());
    let mut json = shown(&account);
    json["key_id"] = json!(key.map(|key| key.id));
    json["api_key"] = json!(secret);
    let mut text = format!("Made the service account {}", account.id);
    if let Some(secret) = secret {
        text = format!("{text}\nKey, shown this once: {secret}");
    }
    Ok(Answer::new(json, text))
}

async fn first_key(
    args: &CreateArgs,
    account: &ServiceAccount,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<(ApiKey, Secret)> {
    let new = NewApiKey {
        org_id: account.org_id,
        project_id: Some(account.project_id),
        name: FIRST_KEY.to_owned(),
        expires_at: expiry(args.expires_in, now),
    };
    let rights = Rights::of_account(account.id, args.scopes.iter().copied().collect());
    Ok(api_keys::create_with(tx, installation.pepper()?, &new, &rights, now).await?)
}

fn shown(account: &ServiceAccount) -> Value {
    json!({
        "service_account_id": account.id,
        "project_id": account.project_id,
        "name": account.name,
        "role": account.role.as_str(),
    })
}

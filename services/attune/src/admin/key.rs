//! `attune admin key`.

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use domain::{ApiKeyId, Role, Scope, ServiceAccountId};
use serde_json::{Value, json};
use store::OperatorTx;
use store::api_keys::{self, ApiKey, KeyAct, KeyKind, NewApiKey, Rights, Secret};
use store::organizations::Organization;
use time::{Duration, OffsetDateTime};

use super::installation::{Installation, open_project, organization};
use super::service_account::service_account;
use super::{Answer, Common, Within, record};

/// Arguments of `attune admin key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key, which is shown this once
    Create(CreateArgs),
    /// Show an organization's keys that are in use
    List {
        #[command(flatten)]
        within: Within,
    },
    /// Refuse a key from now on
    Revoke {
        /// The key's id, `key_…`
        key: ApiKeyId,
        #[command(flatten)]
        within: Within,
    },
    /// Replace a key by a new one with the same rights, which is shown this once
    Rotate {
        /// The key's id, `key_…`
        key: ApiKeyId,
        /// For how long the old one stays good, in seconds
        #[arg(long, default_value_t = 86_400, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=2_592_000))]
        grace: u32,
        #[command(flatten)]
        within: Within,
    },
}

/// Arguments of `attune admin key create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What people call it
    #[arg(long)]
    name: String,
    /// The project that it opens, by id or slug; without one it administers the organization
    #[arg(long)]
    project: Option<String>,
    /// What it may do there: `owner`, `member` or `viewer`
    #[arg(long, default_value = "owner", requires = "project")]
    role: Role,
    /// The project's service account whose key it will be, by id; it has the account's role
    #[arg(long, value_name = "ID", requires = "project", conflicts_with = "role")]
    service_account: Option<ServiceAccountId>,
    /// What it is limited to: `files`, `jobs`, `inference`, `read_only`, or several with commas between
    #[arg(long, value_delimiter = ',', requires = "project")]
    scopes: Vec<Scope>,
    /// After how many seconds it expires; without this it does not
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    expires_in: Option<u32>,
    #[command(flatten)]
    within: Within,
}

impl KeyCommand {
    fn within(&self) -> &Within {
        match self {
            Self::Create(CreateArgs { within, .. })
            | Self::List { within }
            | Self::Revoke { within, .. }
            | Self::Rotate { within, .. } => within,
        }
    }

    pub(super) fn common(&self) -> &Common {
        &self.within().common
    }
}

pub(super) async fn act(
    command: &KeyCommand,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    let org = organization(tx, &command.within().org).await?;
    match command {
        KeyCommand::Create(args) => create(args, &org, tx, installation, now).await,
        KeyCommand::List { .. } => {
            let keys = api_keys::list(tx, org.id).await?;
            let listed = keys.into_iter().filter(|key| is_in_use(key, now));
            let listed = listed.map(|key| (shown(&key), line(&key)));
            Ok(Answer::list(listed.collect(), "No keys"))
        }
        KeyCommand::Revoke { key, .. } => {
            let found = find(tx, &org, *key).await?;
            ensure!(
                is_in_use(&found, now),
                "the key `{key}` is revoked or has expired"
            );
            api_keys::revoke(tx, found.id, now).await?;
            record(tx, org.id, &found.act(KeyAct::Deleted), now).await?;
            let json = json!({"key_id": key, "revoked": true});
            Ok(Answer::new(json, format!("Revoked `{key}`")))
        }
        KeyCommand::Rotate { key, grace, .. } => {
            let old = find(tx, &org, *key).await?;
            let grace = Duration::seconds(i64::from(*grace));
            let made = api_keys::rotate(tx, installation.pepper()?, &old, grace, now).await?;
            record(tx, org.id, &old.act(KeyAct::Rotated(made.0.id)), now).await?;
            Ok(made_answer(&made))
        }
    }
}

async fn create(
    args: &CreateArgs,
    org: &Organization,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    ensure!(!args.name.trim().is_empty(), "a key needs a name");
    let project_id = match &args.project {
        Some(name) => Some(open_project(tx, org, name).await?.project.id),
        None => None,
    };
    let key = NewApiKey {
        org_id: org.id,
        project_id,
        name: args.name.trim().to_owned(),
        expires_at: expiry(args.expires_in, now),
    };
    let scopes = args.scopes.iter().copied().collect();
    let rights = match (args.service_account, project_id) {
        (Some(id), Some(project)) => {
            let account = service_account(tx, org, project, id).await?;
            Rights::of_account(account.id, scopes)
        }
        _ => Rights {
            role: args.role,
            scopes,
            service_account: None,
        },
    };
    let made = api_keys::create_with(tx, installation.pepper()?, &key, &rights, now).await?;
    record(tx, org.id, &made.0.act(KeyAct::Created), now).await?;
    Ok(made_answer(&made))
}

/// When a key expires that is made now.
pub(super) fn expiry(seconds: Option<u32>, now: OffsetDateTime) -> Option<OffsetDateTime> {
    seconds.map(|seconds| now + Duration::seconds(i64::from(seconds)))
}

fn made_answer((key, secret): &(ApiKey, Secret)) -> Answer {
    let mut json = shown(key);
    json["api_key"] = secret.expose().into();
    let text = format!("Key {}, shown this once: {}", key.id, secret.expose());
    Answer::new(json, text)
}

/// The organization's key, be it in use or not.
async fn find(tx: &mut OperatorTx, org: &Organization, id: ApiKeyId) -> Result<ApiKey> {
    let keys = api_keys::list(tx, org.id).await?;
    let found = keys.into_iter().find(|key| key.id == id);
    found.with_context(|| format!("the organization `{}` has no key `{id}`", org.slug))
}

fn is_in_use(key: &ApiKey, now: OffsetDateTime) -> bool {
    key.revoked_at.is_none() && key.expires_at.is_none_or(|end| end > now)
}

fn shown(key: &ApiKey) -> Value {
    // A service account has a role of its own.
    let is_own = key.rights.service_account.is_none();
    let role = is_own.then_some(key.rights.role);
    json!({
        "key_id": key.id,
        "name": key.name,
        "project_id": key.project_id,
        "prefix": key.prefix,
        "role": role.map(Role::as_str),
        "scopes": key.rights.scopes.words(),
        "service_account_id": key.rights.service_account,
        "last_used_at": key.last_used_at.map(OffsetDateTime::unix_timestamp),
        "expires_at": key.expires_at.map(OffsetDateTime::unix_timestamp),
    })
}

fn line(key: &ApiKey) -> String {
    let opens = match (key.kind, key.project_id) {
        (KeyKind::Project, Some(project)) => project.to_string(),
        _ => "admin".to_owned(),
    };
    format!("{}  {}…  {opens}  {}", key.id, key.prefix, key.name)
}

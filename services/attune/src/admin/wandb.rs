//! `attune admin project wandb`: the account that a project's jobs report to Weights & Biases with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use domain::ProjectId;
use serde_json::{Value, json};
use store::OperatorTx;
use store::audit::Act;
use store::organizations::Organization;
use store::wandb::accounts::{self, Account};
use time::OffsetDateTime;

use super::installation::{Installation, open_project, project};
use super::{Answer, Within, record, secret_file};

/// Characters of a key. Weights & Biases' have 40 or 86.
const MAX_KEY_CHARS: usize = 256;

/// Arguments of `attune admin project wandb`.
#[derive(Debug, Subcommand)]
pub enum WandbCommand {
    /// Set the account, in place of the one that the project had
    Set {
        /// The project, by id or slug
        project: String,
        /// A file that holds the API key and nothing else
        #[arg(long, value_name = "FILE")]
        api_key_file: PathBuf,
        /// The server's API
        #[arg(long, value_name = "URL", default_value = "https://api.wandb.ai")]
        base_url: String,
        /// The user or team of runs that name none; without this the key's own
        #[arg(long)]
        entity: Option<String>,
        #[command(flatten)]
        within: Within,
    },
    /// Show the account, without its key
    Show {
        /// The project, by id or slug
        project: String,
        #[command(flatten)]
        within: Within,
    },
    /// Take the account away: the project's jobs report no more
    Remove {
        /// The project, by id or slug
        project: String,
        #[command(flatten)]
        within: Within,
    },
}

impl WandbCommand {
    pub(super) fn within(&self) -> &Within {
        match self {
            Self::Set { within, .. } | Self::Show { within, .. } | Self::Remove { within, .. } => {
                within
            }
        }
    }
}

pub(super) async fn act(
    command: &WandbCommand,
    org: &Organization,
    tx: &mut OperatorTx,
    installation: &Installation,
    now: OffsetDateTime,
) -> Result<Answer> {
    match command {
        WandbCommand::Set {
            project,
            api_key_file,
            base_url,
            entity,
            ..
        } => {
            let id = open_project(tx, org, project).await?.project.id;
            let account = Account {
                base_url: api::wandb::base_url(base_url)
                    .with_context(|| format!("--base-url `{base_url}` cannot be used"))?,
                entity: entity.clone(),
            };
            let key = read_key(api_key_file)?;
            let keyring = installation.keyring()?;
            accounts::set(tx, &keyring, id, &account, &key, now).await?;
            let act = about("wandb_account.updated", id);
            record(tx, org.id, &act.details(settings(&account)), now).await?;
            Ok(shown(id, &account))
        }
        WandbCommand::Show { project: name, .. } => {
            let id = project(tx, org, name).await?.project.id;
            let account = accounts::find(tx, id).await?;
            let account = account.with_context(|| without(name))?;
            Ok(shown(id, &account))
        }
        WandbCommand::Remove { project: name, .. } => {
            let id = project(tx, org, name).await?.project.id;
            ensure!(accounts::remove(tx, id).await?, without(name));
            record(tx, org.id, &about("wandb_account.deleted", id), now).await?;
            let json = json!({"project_id": id, "removed": true});
            let text = format!("`{id}` reports to Weights & Biases no more");
            Ok(Answer::new(json, text))
        }
    }
}

fn without(project: &str) -> String {
    format!(
        "the project `{project}` has no account of Weights & Biases: `attune admin project wandb set` sets one"
    )
}

fn about(action: &'static str, id: ProjectId) -> Act {
    Act::new(action, "project.wandb_account", id).project(id)
}

fn read_key(path: &Path) -> Result<String> {
    let what = format!("an API key (letters, digits and signs, at most {MAX_KEY_CHARS})");
    secret_file::read("--api-key-file", path, &what, |word| {
        word.len() <= MAX_KEY_CHARS && word.chars().all(|c| c.is_ascii_graphic())
    })
}

fn settings(account: &Account) -> Value {
    json!({"base_url": account.base_url, "entity": account.entity})
}

fn shown(id: ProjectId, account: &Account) -> Answer {
    let mut json = settings(account);
    json["project_id"] = json!(id);
    let entity = match &account.entity {
        Some(entity) => format!(" as `{entity}`"),
        None => String::new(),
    };
    let text = format!("`{id}` reports to {}{entity}", account.base_url);
    Answer::new(json, text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_one_word_and_an_error_shows_none_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "local-0123456789abcdef\n").unwrap();
        assert_eq!(read_key(&path).unwrap(), "local-0123456789abcdef");
        for wrong in ["", "\n", "sesame open", &"k".repeat(257)] {
            fs::write(&path, wrong).unwrap();
            let message = read_key(&path).unwrap_err().to_string();
            assert!(
                !message.contains("sesame") && message.contains("must hold"),
                "{message}"
            );
        }
    }
}

//! The installation that a command means: how to reach its database, and the pepper of its keys.

use std::env;
use std::path::Path;

use anyhow::{Context, Result, bail};
use domain::{OrgId, ProjectId};
use store::api_keys::Pepper;
use store::organizations::{self, Organization};
use store::projects::{self, ListedProject};
use store::sealed::Keyring;
use store::{OperatorTx, Store};

use crate::data_dir::DataDir;
use crate::secrets::Secrets;
use crate::storage::Visit;

/// An installation whose database answers.
pub(super) struct Installation {
    pub(super) store: Store,
    pepper: Option<Pepper>,
    /// What secrets are sealed with, in a data directory.
    secret_keys: Option<String>,
    visit: Option<Visit>,
}

impl Installation {
    /// A data directory that is named counts before the environment, and the environment before the usual directory.
    pub(super) async fn open(data_dir: Option<&Path>) -> Result<Self> {
        if let (None, Some(url)) = (data_dir, database_url()) {
            return Self::of_url(&url).await;
        }
        let secrets = Secrets::open(&DataDir::open(data_dir)?)?;
        let visit = Visit::open(data_dir).await?;
        match Store::connect(&visit.reach().admin_url).await {
            Ok(store) => Ok(Self {
                store,
                pepper: Some(Pepper::from_hex(&secrets.key_pepper)?),
                secret_keys: Some(secrets.secret_keys),
                visit: Some(visit),
            }),
            Err(error) => {
                visit.close().await;
                Err(error).context("cannot reach the installation's database")
            }
        }
    }

    async fn of_url(url: &str) -> Result<Self> {
        let pepper = variable("ATTUNE_KEY_PEPPER")
            .map(|text| Pepper::from_hex(&text).context("ATTUNE_KEY_PEPPER cannot be used"))
            .transpose()?;
        let store = Store::connect(url)
            .await
            .context("cannot reach the database of DATABASE_URL")?;
        Ok(Self {
            store,
            pepper,
            secret_keys: None,
            visit: None,
        })
    }

    /// What keys are hashed with. Only commands that make keys need it.
    pub(super) fn pepper(&self) -> Result<&Pepper> {
        self.pepper.as_ref().context(
            "ATTUNE_KEY_PEPPER is not set: a key made without the API's own pepper would open nothing",
        )
    }

    /// What secrets are sealed with: that of the data directory, or of the environment.
    pub(super) fn keyring(&self) -> Result<Keyring> {
        if let Some(keys) = &self.secret_keys {
            return Ok(Keyring::parse(keys)?);
        }
        Keyring::from_variables(variable)?
            .context("neither ATTUNE_SECRET_KEYS nor ATTUNE_SECRET_KEYS_FILE is set")
    }

    /// Stops what was started for this command alone.
    pub(super) async fn close(self) {
        self.store.close().await;
        if let Some(visit) = self.visit {
            visit.close().await;
        }
    }
}

/// `ATTUNE_MIGRATE_URL` is what `attune migrate` and `attune models` take; both name an administrator's login.
fn database_url() -> Option<String> {
    variable("ATTUNE_MIGRATE_URL").or_else(|| variable("DATABASE_URL"))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The organization that `--org` names.
pub(super) async fn organization(tx: &mut OperatorTx, name: &str) -> Result<Organization> {
    let found = match name.parse::<OrgId>() {
        Ok(id) => organizations::find(tx, id).await?,
        Err(_) => organizations::find_by_slug(tx, name).await?,
    };
    found.with_context(|| {
        format!("there is no organization `{name}`: `attune admin org list` shows which there are")
    })
}

/// The organization's project that is named by its id or its slug.
pub(super) async fn project(
    tx: &mut OperatorTx,
    org: &Organization,
    name: &str,
) -> Result<ListedProject> {
    let id = match name.parse::<ProjectId>() {
        Ok(id) => Some(id),
        Err(_) => projects::find_by_slug(tx, org.id, name)
            .await?
            .map(|project| project.id),
    };
    let found = match id {
        Some(id) => projects::find(tx, org.id, id).await?,
        None => None,
    };
    found.with_context(|| {
        format!(
            "the organization `{}` has no project `{name}`: `attune admin project list` shows which it has",
            org.slug
        )
    })
}

/// The same, unless it is archived: nothing is added to a project that nobody is let into.
pub(super) async fn open_project(
    tx: &mut OperatorTx,
    org: &Organization,
    name: &str,
) -> Result<ListedProject> {
    let found = project(tx, org, name).await?;
    if found.archived_at.is_some() {
        bail!("the project `{name}` is archived");
    }
    Ok(found)
}

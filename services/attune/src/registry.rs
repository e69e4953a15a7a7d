//! What we ask of the database as whoever runs the installation.

use anyhow::{Context, Result, bail, ensure};
use domain::{BaseModelId, Clock};
use store::Store;
use store::api_keys::{Pepper, Secret};
use store::base_models::{self, BaseModel};
use store::bootstrap::Bootstrap;

use crate::secrets::Secrets;

/// The keys an installation begins with, as text.
pub struct FirstKeys {
    /// 32 bytes in hexadecimal.
    pub pepper: String,
    pub api_key: String,
    pub admin_key: String,
}

impl From<&Secrets> for FirstKeys {
    fn from(secrets: &Secrets) -> Self {
        Self {
            pepper: secrets.key_pepper.clone(),
            api_key: secrets.api_key.clone(),
            admin_key: secrets.admin_key.clone(),
        }
    }
}

/// Brings the schema up to date, and makes the first organization, project and keys.
///
/// # Errors
///
/// When the database cannot be reached or refuses.
pub async fn prepare(admin_url: &str, keys: &FirstKeys) -> Result<()> {
    store::migrate(admin_url)
        .await
        .context("cannot bring the database up to date")?;
    let store = Store::connect(admin_url).await?;
    let prepared = bootstrap(&store, keys)
        .await
        .context("cannot make the first project");
    store.close().await;
    prepared
}

async fn bootstrap(store: &Store, keys: &FirstKeys) -> Result<()> {
    let pepper = Pepper::from_hex(&keys.pepper)?;
    let (api_key, admin_key) = (
        Secret::from(keys.api_key.clone()),
        Secret::from(keys.admin_key.clone()),
    );
    let keys = Bootstrap {
        api_key: &api_key,
        admin_key: &admin_key,
    };
    let mut tx = store.operator_tx().await?;
    store::bootstrap::run(&mut tx, &pepper, &keys, Clock::system().now()).await?;
    tx.commit().await?;
    Ok(())
}

/// The base models of the installation.
pub struct Registry {
    store: Store,
}

impl Registry {
    /// # Errors
    ///
    /// When the database cannot be reached.
    pub async fn connect(admin_url: &str) -> Result<Self> {
        Ok(Self {
            store: Store::connect(admin_url).await?,
        })
    }

    /// Every base model, by name.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached.
    pub async fn list(&self) -> Result<Vec<BaseModel>> {
        let mut tx = self.store.operator_tx().await?;
        let models = base_models::list(&mut tx).await?;
        tx.commit().await?;
        Ok(models)
    }

    /// The base model with this name.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached.
    pub async fn find(&self, name: &str) -> Result<Option<BaseModel>> {
        let mut tx = self.store.operator_tx().await?;
        let model = base_models::find_by_name(&mut tx, name).await?;
        tx.commit().await?;
        Ok(model)
    }

    /// Makes a model, whose files are stored, visible to every project.
    ///
    /// # Errors
    ///
    /// When the name was taken in the meantime.
    pub async fn register(&self, model: &BaseModel) -> Result<()> {
        let mut tx = self.store.operator_tx().await?;
        base_models::register(&mut tx, model).await?;
        tx.commit().await?;
        Ok(())
    }

    pub async fn close(self) {
        self.store.close().await;
    }
}

/// The model as it will stand in the database.
///
/// # Errors
///
/// When the name will not do.
pub fn describe(name: &str, files: &lm::base::BaseFiles, fingerprint: String) -> Result<BaseModel> {
    check_name(name)?;
    let config = files.config();
    Ok(BaseModel {
        id: BaseModelId::new(),
        name: name.to_owned(),
        fingerprint,
        architecture: config.architecture.model_type().to_owned(),
        n_params: config.n_params(),
        context_length: config.max_position_embeddings as u64,
        d_model: config.hidden_size as u64,
        n_layers: config.n_layers as u64,
        n_heads: config.n_heads as u64,
        n_kv_heads: config.n_kv_heads as u64,
        d_ff: config.intermediate_size as u64,
        vocab_size: config.vocab_size as u64,
        size_bytes: 0,
        files: Vec::new(),
        created_at: Clock::system().now(),
    })
}

/// Clients write the name in URLs and in the names of fine-tuned models, which are split at colons.
fn check_name(name: &str) -> Result<()> {
    ensure!(
        !name.is_empty() && name.len() <= 64,
        "a model's name has 1 to 64 characters"
    );
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
        bail!(
            "`{name}` cannot be a model's name: use letters, digits, `-`, `_` and `.`, with a letter or a digit first"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_confuse_a_url_or_a_fine_tuned_name_are_refused() {
        for name in ["smollm2-135m-instruct", "Llama-3.2-1B", "a"] {
            check_name(name).unwrap();
        }
        for name in [
            "",
            "ft:x",
            "org/name",
            ".hidden",
            "a b",
            "ü",
            &"a".repeat(65),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}

//! Base models: what every project of the installation may train on and chat with.

use std::collections::BTreeMap;

use domain::BaseModelId;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use time::OffsetDateTime;

use crate::number::{from_bigint, to_bigint};
use crate::tx::Connection;
use crate::{AnyTx, OperatorTx, StoreError, nul};

/// A base model. Its objects never change; a new version is a new model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// Its id, part of its objects' keys.
    pub id: BaseModelId,
    /// As clients write it.
    pub name: String,
    /// SHA-256 over its configuration and weights, in hexadecimal digits.
    pub fingerprint: String,
    /// The family, for instance `llama`.
    pub architecture: String,
    /// Parameters.
    pub n_params: u64,
    /// Tokens it can take in.
    pub context_length: u64,
    /// Width of the residual stream.
    pub d_model: u64,
    /// Decoder blocks.
    pub n_layers: u64,
    /// Query heads.
    pub n_heads: u64,
    /// Key and value heads.
    pub n_kv_heads: u64,
    /// Width of the feed-forward layers.
    pub d_ff: u64,
    /// Tokens it knows.
    pub vocab_size: u64,
    /// All files together.
    pub size_bytes: u64,
    /// Its objects.
    pub files: Vec<BaseModelFile>,
    /// When it was registered.
    pub created_at: OffsetDateTime,
}

/// One object of a base model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseModelFile {
    /// The file's name, for instance `config.json`.
    pub name: String,
    /// Its length.
    pub size_bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl BaseModel {
    /// The SHA-256 of every file, by name.
    pub fn sums(&self) -> BTreeMap<String, String> {
        let pair = |file: &BaseModelFile| (file.name.clone(), file.sha256.clone());
        self.files.iter().map(pair).collect()
    }
}

/// Registers a model whose objects are stored.
///
/// # Errors
/// [`StoreError::Exists`] if the name is taken.
pub async fn register(tx: &mut OperatorTx, model: &BaseModel) -> Result<(), StoreError> {
    nul::refuse("name", &model.name)?;
    nul::refuse("architecture", &model.architecture)?;
    sqlx::query!(
        "INSERT INTO base_models (id, name, fingerprint, architecture, n_params, context_length, d_model,
             n_layers, n_heads, n_kv_heads, d_ff, vocab_size, size_bytes, files, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        model.id.0,
        model.name,
        model.fingerprint,
        model.architecture,
        to_bigint("n_params", model.n_params)?,
        to_bigint("context_length", model.context_length)?,
        to_bigint("d_model", model.d_model)?,
        to_bigint("n_layers", model.n_layers)?,
        to_bigint("n_heads", model.n_heads)?,
        to_bigint("n_kv_heads", model.n_kv_heads)?,
        to_bigint("d_ff", model.d_ff)?,
        to_bigint("vocab_size", model.vocab_size)?,
        to_bigint("size_bytes", model.size_bytes)?,
        Json(&model.files) as _,
        model.created_at,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Forgets a model. False if there is none.
///
/// # Errors
/// [`StoreError::MissingReference`] while a job or a fine-tuned model refers to it.
pub async fn remove(tx: &mut OperatorTx, id: BaseModelId) -> Result<bool, StoreError> {
    let done = sqlx::query!("DELETE FROM base_models WHERE id = $1", id.0)
        .execute(tx.connection())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The model with this id.
pub async fn find(tx: &mut impl AnyTx, id: BaseModelId) -> Result<Option<BaseModel>, StoreError> {
    let row = sqlx::query_as!(
        BaseModelRow,
        r#"SELECT id, name, fingerprint, architecture, n_params, context_length, d_model, n_layers,
                  n_heads, n_kv_heads, d_ff, vocab_size, size_bytes,
                  files AS "files: Json<Vec<BaseModelFile>>", created_at
           FROM base_models WHERE id = $1"#,
        id.0
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(BaseModelRow::read).transpose()
}

/// The model with this name.
pub async fn find_by_name(
    tx: &mut impl AnyTx,
    name: &str,
) -> Result<Option<BaseModel>, StoreError> {
    nul::refuse("model", name)?;
    let row = sqlx::query_as!(
        BaseModelRow,
        r#"SELECT id, name, fingerprint, architecture, n_params, context_length, d_model, n_layers,
                  n_heads, n_kv_heads, d_ff, vocab_size, size_bytes,
                  files AS "files: Json<Vec<BaseModelFile>>", created_at
           FROM base_models WHERE name = $1"#,
        name
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(BaseModelRow::read).transpose()
}

/// Every model, by name. An installation has a handful.
pub async fn list(tx: &mut impl AnyTx) -> Result<Vec<BaseModel>, StoreError> {
    let rows = sqlx::query_as!(
        BaseModelRow,
        r#"SELECT id, name, fingerprint, architecture, n_params, context_length, d_model, n_layers,
                  n_heads, n_kv_heads, d_ff, vocab_size, size_bytes,
                  files AS "files: Json<Vec<BaseModelFile>>", created_at
           FROM base_models ORDER BY name"#
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter().map(BaseModelRow::read).collect()
}

struct BaseModelRow {
    id: uuid::Uuid,
    name: String,
    fingerprint: String,
    architecture: String,
    n_params: i64,
    context_length: i64,
    d_model: i64,
    n_layers: i64,
    n_heads: i64,
    n_kv_heads: i64,
    d_ff: i64,
    vocab_size: i64,
    size_bytes: i64,
    files: Json<Vec<BaseModelFile>>,
    created_at: OffsetDateTime,
}

impl BaseModelRow {
    fn read(self) -> Result<BaseModel, StoreError> {
        Ok(BaseModel {
            id: BaseModelId(self.id),
            name: self.name,
            fingerprint: self.fingerprint,
            architecture: self.architecture,
            n_params: from_bigint("n_params", self.n_params)?,
            context_length: from_bigint("context_length", self.context_length)?,
            d_model: from_bigint("d_model", self.d_model)?,
            n_layers: from_bigint("n_layers", self.n_layers)?,
            n_heads: from_bigint("n_heads", self.n_heads)?,
            n_kv_heads: from_bigint("n_kv_heads", self.n_kv_heads)?,
            d_ff: from_bigint("d_ff", self.d_ff)?,
            vocab_size: from_bigint("vocab_size", self.vocab_size)?,
            size_bytes: from_bigint("size_bytes", self.size_bytes)?,
            files: self.files.0,
            created_at: self.created_at,
        })
    }
}

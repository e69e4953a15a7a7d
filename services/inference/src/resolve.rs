//! From a model's name to its base and adapter, as this project may use them.
//!
//! Asked at every call, in a transaction that shows one project's rows only: what is in a cache proves nothing, since
//! a model may have been deleted, or be another project's.

use domain::ProjectId;
use store::models::{self, ResolvedModel};
use store::{Store, StoreError};

use crate::error::ChatError;

/// No model's name is longer. Longer ones are not worth a question to Postgres, nor an echo.
const MAX_NAME_CHARS: usize = 256;

/// The base model, and the adapter if the name is a fine-tuned model's or one of its checkpoints'.
///
/// # Errors
///
/// [`ChatError::ModelNotFound`] for a missing model and for another project's alike.
pub(crate) async fn resolve(
    store: &Store,
    project_id: ProjectId,
    name: &str,
) -> Result<ResolvedModel, ChatError> {
    // Postgres has no NUL in its text, so no model has one in its name.
    if name.chars().count() > MAX_NAME_CHARS || name.contains('\0') {
        return Err(not_found(name));
    }
    let mut tx = store.tenant_tx(project_id).await?;
    let resolved = models::resolve(&mut tx, name).await?;
    tx.commit().await?;
    resolved.ok_or_else(|| not_found(name))
}

fn not_found(name: &str) -> ChatError {
    ChatError::ModelNotFound(name.chars().take(MAX_NAME_CHARS).collect())
}

impl From<StoreError> for ChatError {
    fn from(error: StoreError) -> Self {
        let transient = error.is_transient();
        let cause = anyhow::Error::new(error).context("looking the model up");
        if transient {
            Self::Unavailable(cause)
        } else {
            Self::Internal(cause)
        }
    }
}

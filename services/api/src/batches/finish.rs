//! The end of a batch, whichever it is.

use domain::Batch;
use store::batches::{self, lines};
use store::{StoreError, TenantTx};

/// Stores a batch that has become final and forgets its lines. Whoever waits for the end of a batch is told here, in
/// the same transaction.
pub(super) async fn finish(tx: &mut TenantTx, batch: &Batch) -> Result<(), StoreError> {
    debug_assert!(batch.status.is_final(), "{}", batch.status);
    lines::delete(tx, batch.id).await?;
    batches::save(tx, batch).await
}

/// Says that the end is committed.
pub(super) fn report(batch: &Batch) {
    let status = batch.status.as_str();
    metrics::counter!("attune_batches_finished_total", "status" => status).increment(1);
    tracing::info!(batch.id = %batch.id, project.id = %batch.project_id, "Batch `{}` is {status}", batch.id);
}

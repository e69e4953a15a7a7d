//! Going along a whole chain in the database.

use domain::OrgId;

use super::chain::{Broken, Hash, Verifier};
use super::listing;
use crate::{Store, StoreError};

/// Rows that are read at once.
const BATCH: u32 = 1000;

/// Verifies an organization's log, up to now: how many rows it has, and its last hash. `head` is a hash that was the last
/// one earlier, kept elsewhere; it must come up.
///
/// # Errors
/// Of the outer kind if the database cannot be read, of the inner kind if the chain is broken.
pub async fn verify(
    store: &Store,
    org_id: OrgId,
    head: Option<Hash>,
) -> Result<Result<(i64, Hash), Broken>, StoreError> {
    let mut tx = store.operator_tx().await?;
    let heads = listing::heads(&mut tx).await?;
    tx.commit().await?;
    let written = heads.iter().find(|(id, _)| *id == org_id);
    let written = written.map_or(0, |(_, seq)| *seq);

    let mut verifier = head.map_or_else(Verifier::default, Verifier::expect);
    let mut seq = 0;
    loop {
        // Rows are never changed, so no one snapshot has to last for all of them.
        let mut tx = store.operator_tx().await?;
        let rows = listing::next(&mut tx, org_id, seq, BATCH).await?;
        tx.commit().await?;
        let Some(last) = rows.last() else { break };
        seq = last.seq;
        for row in &rows {
            if let Err(broken) = verifier.take(row) {
                return Ok(Err(broken));
            }
        }
    }
    if seq < written {
        return Ok(Err(Broken::Truncated {
            expected: written,
            found: seq,
        }));
    }
    Ok(verifier.finish())
}

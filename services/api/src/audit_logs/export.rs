//! `GET /v1/organization/audit_logs/export`: the whole log as JSON Lines, oldest first.
//!
//! Each line has every field that the hash is over, as the text it is over, so that whoever holds the lines can verify
//! them with any SHA-256, as `store::audit::chain` says how. `attune admin audit verify` reads the database instead.

use async_stream::stream;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use domain::OrgId;
use futures::Stream;
use store::Store;
use store::audit::chain::AuditRow;
use store::audit::listing;

use crate::AppState;
use crate::auth::Administrator;
use crate::error::ApiError;

/// Rows that are in memory at once.
const BATCH: u32 = 500;

/// Export the organization's audit log.
#[utoipa::path(
    get,
    path = "/v1/organization/audit_logs/export",
    tag = "Organization",
    responses((
        status = 200,
        content_type = "application/jsonl",
        body = String,
        description = "One row a line, oldest first. A stream that ends without a newline was cut short."
    ))
)]
pub async fn export_audit_logs(
    State(state): State<AppState>,
    admin: Administrator,
) -> Result<Response, ApiError> {
    // The first rows are read before the status is sent: a database that is away is a 503, not a short export.
    let mut tx = state.store.org_tx(admin.org_id).await?;
    let first = listing::next(&mut tx, admin.org_id, 0, BATCH).await?;
    tx.commit().await?;
    let body = Body::from_stream(lines(state.store.clone(), admin.org_id, first));
    Ok(([(CONTENT_TYPE, "application/jsonl")], body).into_response())
}

fn lines(
    store: Store,
    org_id: OrgId,
    first: Vec<AuditRow>,
) -> impl Stream<Item = Result<Bytes, store::StoreError>> + Send {
    stream! {
        let mut rows = first;
        while let Some(last) = rows.last() {
            let after = last.seq;
            let text: String = rows.iter().map(AuditRow::export_line).collect();
            yield Ok(Bytes::from(text));
            match next(&store, org_id, after).await {
                Ok(more) => rows = more,
                // The connection is closed in the middle of the body, so that nobody takes it for a whole one.
                Err(error) => {
                    let chain = domain::failure::error_chain(&error);
                    tracing::warn!(error = %chain, "An export of the audit log broke off: {chain}");
                    yield Err(error);
                    return;
                }
            }
        }
    }
}

async fn next(
    store: &Store,
    org_id: OrgId,
    after: i64,
) -> Result<Vec<AuditRow>, store::StoreError> {
    let mut tx = store.org_tx(org_id).await?;
    let rows = listing::next(&mut tx, org_id, after, BATCH).await?;
    tx.commit().await?;
    Ok(rows)
}

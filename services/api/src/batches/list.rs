//! `GET /v1/batches`.

use axum::Json;
use axum::extract::State;
use store::batches::{self, BatchListing};

use super::BatchObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::Params;
use crate::page::{ListPage, list_page};

/// List batches, newest first.
#[utoipa::path(
    get,
    path = "/v1/batches",
    tag = "Batches",
    params(
        ("after" = Option<String>, Query, description = "The id of the last element of the page before."),
        ("limit" = Option<i64>, Query, description = "How many elements a page has: 20 unless asked otherwise, at most 100. What lies outside is moved to the nearest that is allowed."),
    ),
    responses((status = 200, body = ListPage<BatchObject>, description = "A page of batches."))
)]
pub async fn list_batches(
    State(state): State<AppState>,
    tenant: Tenant,
    params: Params,
) -> Result<Json<ListPage<BatchObject>>, ApiError> {
    let listing = BatchListing {
        after: params.after()?,
        limit: params.limit(20, 100)?,
    };
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let page = batches::list(&mut tx, &listing)
        .await?
        .map(BatchObject::from);
    Ok(list_page(page.data, page.has_more, |batch| {
        batch.id.to_string()
    }))
}

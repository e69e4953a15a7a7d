//! `GET /v1/batches`.

use axum::Json;
use axum::extract::State;
use store::batches::{self, BatchListing};

use super::BatchObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::Params;
use crate::page::{ListPage, WhichPage, list_page};

/// List batches, newest first.
#[utoipa::path(
    get,
    path = "/v1/batches",
    tag = "Batches",
    params(
        WhichPage,
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

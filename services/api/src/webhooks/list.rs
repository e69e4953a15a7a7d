//! `GET /v1/webhook_endpoints`.

use axum::Json;
use axum::extract::State;
use store::webhooks;

use super::WebhookEndpoint;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::Params;
use crate::page::{ListPage, WhichPage, list_page};

/// List endpoints, newest first.
#[utoipa::path(
    get,
    path = "/v1/webhook_endpoints",
    tag = "Webhooks",
    params(
        WhichPage,
    ),
    responses((status = 200, body = ListPage<WebhookEndpoint>, description = "A page of endpoints."))
)]
pub async fn list_webhook_endpoints(
    State(state): State<AppState>,
    tenant: Tenant,
    params: Params,
) -> Result<Json<ListPage<WebhookEndpoint>>, ApiError> {
    let (after, limit) = (params.after()?, params.limit(20, 100)?);
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let page = webhooks::list(&mut tx, after, limit)
        .await?
        .map(WebhookEndpoint::from);
    Ok(list_page(page.data, page.has_more, |endpoint| {
        endpoint.id.to_string()
    }))
}

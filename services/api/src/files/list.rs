//! `GET /v1/files`.

use axum::Json;
use axum::extract::State;
use store::files::{self, FileListing, Order};

use super::FileObject;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::Params;
use crate::page::{ListPage, SortOrder, list_page};

const MAX_LIMIT: u32 = 10_000;

/// List files, newest first unless asked otherwise.
#[utoipa::path(
    get,
    path = "/v1/files",
    tag = "Files",
    params(
        ("after" = Option<String>, Query, description = "The id of the last element of the page before."),
        ("limit" = Option<i64>, Query, description = "How many elements a page has: 10000 unless asked otherwise, at most 10000. What lies outside is moved to the nearest that is allowed."),
        ("order" = inline(Option<SortOrder>), Query, description = "`asc` or `desc` by the time of creation."),
        ("purpose" = Option<String>, Query, description = "Only files of this purpose."),
    ),
    responses((status = 200, body = ListPage<FileObject>, description = "A page of files."))
)]
pub async fn list_files(
    State(state): State<AppState>,
    tenant: Tenant,
    params: Params,
) -> Result<Json<ListPage<FileObject>>, ApiError> {
    let listing = FileListing {
        purpose: params.get("purpose").map(str::to_owned),
        after: params.after()?,
        limit: params.limit(MAX_LIMIT, MAX_LIMIT)?,
        order: order(&params)?,
    };
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let page = files::list(&mut tx, &listing).await?.map(FileObject::from);
    Ok(list_page(page.data, page.has_more, |file| {
        file.id.to_string()
    }))
}

fn order(params: &Params) -> Result<Order, ApiError> {
    match params.given("order") {
        None | Some("desc") => Ok(Order::Descending),
        Some("asc") => Ok(Order::Ascending),
        Some(_) => Err(ApiError::invalid(
            "order",
            "`order` must be `asc` or `desc`.",
        )),
    }
}

//! The envelope of every list.

use axum::Json;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::openapi::build;

/// Which way a list is sorted.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(
    dead_code,
    reason = "only described: queries are read parameter by parameter"
)]
pub(crate) enum SortOrder {
    Asc,
    Desc,
}

/// Which page of a list, as the documentation shows it, where a page has 20 elements unless asked otherwise.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "only described: queries are read parameter by parameter"
)]
pub(crate) struct WhichPage {
    /// The id of the last element of the page before.
    after: Option<String>,
    /// How many elements a page has: 20 unless asked otherwise. What lies outside of 1 to 100 is moved to the nearest.
    limit: Option<i64>,
}

/// One page of a list. The cursor of the next page is `last_id`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListPage<T> {
    #[schema(schema_with = build::list)]
    object: &'static str,
    data: Vec<T>,
    #[schema(required)]
    first_id: Option<String>,
    #[schema(required)]
    last_id: Option<String>,
    has_more: bool,
}

/// A page of elements, each of which knows its id.
pub fn list_page<T>(data: Vec<T>, has_more: bool, id: impl Fn(&T) -> String) -> Json<ListPage<T>> {
    let first_id = data.first().map(&id);
    let last_id = data.last().map(&id);
    Json(ListPage {
        object: "list",
        data,
        first_id,
        last_id,
        has_more,
    })
}

//! `GET /v1/fine_tuning/jobs`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use store::jobs::{self, JobListing, MetadataFilter};

use super::{FineTuningJob, Words};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::Params;
use crate::page::{ListPage, WhichPage, list_page};
use utoipa::ToSchema;

// Values of any kind: a query says each as text, `null` too.
/// What metadata must be there.
#[derive(ToSchema)]
#[schema(value_type = BTreeMap<String, serde_json::Value>)]
#[expect(dead_code, reason = "only described")]
struct MetadataQuery(BTreeMap<String, String>);

/// List jobs, newest first.
#[utoipa::path(
    get,
    path = "/v1/fine_tuning/jobs",
    tag = "Fine-tuning",
    params(
        WhichPage,
        ("metadata" = inline(Option<MetadataQuery>), Query, style = DeepObject, explode, description = "`metadata[KEY]=VALUE`, any number of times, means all of them; `metadata=null` means jobs without any."),
        ("attune-compat" = Option<String>, Header, description = "`openai`: only OpenAI's own words, so that a paused job is shown as `queued`."),
    ),
    responses((status = 200, body = ListPage<FineTuningJob>, description = "A page of jobs."))
)]
pub async fn list_jobs(
    State(state): State<AppState>,
    tenant: Tenant,
    words: Words,
    params: Params,
) -> Result<Json<ListPage<FineTuningJob>>, ApiError> {
    let listing = JobListing {
        after: params.after()?,
        limit: params.limit(20, 100)?,
        metadata: filter(&params)?,
    };
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let page = jobs::list(&mut tx, &listing).await?;
    let shown = words.show(&mut tx, page.data).await?;
    Ok(list_page(shown, page.has_more, |job| job.id.to_string()))
}

/// `metadata[k]=v`, any number of times, means all of them; the word `metadata=null` means none at all.
fn filter(params: &Params) -> Result<MetadataFilter, ApiError> {
    let pairs: BTreeMap<String, String> = params
        .map("metadata")
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    if pairs.keys().any(|key| key.is_empty() || key.contains("][")) {
        return Err(ApiError::invalid(
            "metadata",
            "`metadata` must be given as `metadata[KEY]=VALUE`, with a key that is not empty.",
        ));
    }
    if !pairs.is_empty() {
        return Ok(MetadataFilter::Contains(pairs));
    }
    match params.get("metadata") {
        None => Ok(MetadataFilter::Any),
        Some("null") => Ok(MetadataFilter::None),
        Some(_) => Err(ApiError::invalid(
            "metadata",
            "`metadata` must be `metadata[KEY]=VALUE`, or `null` for jobs without any.",
        )),
    }
}

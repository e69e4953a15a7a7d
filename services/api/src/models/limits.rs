//! `GET /v1/models/{model}/limits`: what a job on this model may ask for.
//!
//! The ranges are those that a new job is checked with, told by the same code.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use domain::config::TargetModule;
use domain::limits::{
    MAX_LINE_BYTES, MAX_METADATA_KEY_CHARS, MAX_METADATA_PAIRS, MAX_METADATA_VALUE_CHARS,
    MAX_SUFFIX_CHARS,
};
use domain::{Hyperparameters, SettingKind};
use serde::Serialize;
use store::models;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathName;

/// What a job on one model may ask for.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelLimits {
    object: &'static str,
    model: String,
    base_model: String,
    /// Tokens that the model takes in, prompt and answer together.
    context_length: u64,
    n_params: u64,
    /// Every setting of `attune`, by its path. `null` and `"auto"` leave it to the service.
    settings: BTreeMap<String, Limit>,
    /// Layers that can carry an adapter: the words of `lora.target_modules`.
    target_modules: Vec<&'static str>,
    max_suffix_chars: usize,
    max_metadata_pairs: usize,
    max_metadata_key_chars: usize,
    max_metadata_value_chars: usize,
    /// The largest file that may be sent in one request.
    max_file_bytes: u64,
    /// The largest file that may be sent in parts, by `/v1/uploads`.
    max_upload_bytes: u64,
    /// Its longest line.
    max_line_bytes: usize,
}

/// What one setting takes.
#[derive(Debug, Serialize, ToSchema)]
struct Limit {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclusive_minimum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclusive_maximum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#enum: Option<Vec<String>>,
}

/// Describe what a job on a model may ask for.
#[utoipa::path(
    get,
    path = "/v1/models/{model}/limits",
    tag = "Models",
    params(
        ("model" = String, Path, description = "The model's name. Its slashes may stand as they are or as `%2F`."),
    ),
    responses((status = 200, body = ModelLimits, description = "The bounds of every setting."))
)]
pub async fn retrieve_model_limits(
    State(state): State<AppState>,
    tenant: Tenant,
    PathName(name): PathName,
) -> Result<Json<ModelLimits>, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let found = models::resolve(&mut tx, &name).await?;
    let base = found
        .ok_or_else(|| ApiError::not_found(Thing::Model, &name))?
        .base;
    Ok(Json(ModelLimits {
        object: "model.limits",
        model: name,
        context_length: base.context_length,
        n_params: base.n_params,
        settings: settings(base.context_length),
        base_model: base.name,
        target_modules: TargetModule::ALL.map(TargetModule::as_str).to_vec(),
        max_suffix_chars: MAX_SUFFIX_CHARS,
        max_metadata_pairs: MAX_METADATA_PAIRS,
        max_metadata_key_chars: MAX_METADATA_KEY_CHARS,
        max_metadata_value_chars: MAX_METADATA_VALUE_CHARS,
        max_file_bytes: state.limits.max_file_bytes,
        max_upload_bytes: state.limits.max_upload_bytes,
        max_line_bytes: MAX_LINE_BYTES,
    }))
}

fn settings(context_length: u64) -> BTreeMap<String, Limit> {
    let settings = Hyperparameters::settings().into_iter();
    let mut limits: BTreeMap<String, Limit> = settings
        .map(|setting| (setting.field, Limit::of(setting.kind)))
        .collect();
    if let Some(limit) = limits.get_mut("max_seq_len") {
        // More is allowed and means this.
        limit.maximum = Some(to_number(context_length));
    }
    limits
}

impl Limit {
    fn of(kind: SettingKind) -> Self {
        let unbounded = Self {
            r#type: "number",
            minimum: None,
            exclusive_minimum: None,
            maximum: None,
            exclusive_maximum: None,
            r#enum: None,
        };
        match kind {
            SettingKind::Integer { min, max } => Self {
                r#type: "integer",
                minimum: Some(to_number(min)),
                maximum: Some(to_number(max)),
                ..unbounded
            },
            SettingKind::Number(range) => Self {
                minimum: range.includes_min.then_some(range.min),
                exclusive_minimum: (!range.includes_min).then_some(range.min),
                maximum: range.max.filter(|_| range.includes_max),
                exclusive_maximum: range.max.filter(|_| !range.includes_max),
                ..unbounded
            },
            SettingKind::Boolean => Self {
                r#type: "boolean",
                ..unbounded
            },
            SettingKind::Word(words) => Self {
                r#type: "string",
                r#enum: Some(words),
                ..unbounded
            },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^52")]
fn to_number(n: u64) -> f64 {
    n as f64
}

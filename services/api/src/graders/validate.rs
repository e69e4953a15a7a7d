//! `POST /v1/fine_tuning/alpha/graders/validate`.

use axum::Json;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{PATH, read};
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::JsonBody;

/// A grader that can be run.
#[derive(Debug, Serialize, ToSchema)]
pub struct ValidGrader {
    /// As it was sent, with every default written out.
    #[schema(value_type = Object)]
    grader: Value,
}

/// Check a grader: its fields, its templates and its formula. No model is asked.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/alpha/graders/validate",
    tag = "Graders",
    request_body(content = super::body::GraderToValidate),
    responses((status = 200, body = ValidGrader, description = "The grader, with every default written out."))
)]
pub async fn validate_grader(
    _: Tenant,
    JsonBody(body): JsonBody,
) -> Result<Json<ValidGrader>, ApiError> {
    let grader = read(&body)?;
    grader.check(PATH)?;
    Ok(Json(ValidGrader {
        grader: grader.to_json(),
    }))
}

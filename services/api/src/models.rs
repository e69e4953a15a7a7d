//! The models endpoints: base models of the installation and the project's own fine-tuned ones.

pub mod delete;
pub mod download;
pub mod limits;
pub mod list;
pub mod retrieve;

use domain::OrgId;
use serde::Serialize;
use store::base_models::BaseModel;
use store::models::FineTunedModel;
use utoipa::ToSchema;

use crate::openapi::build;

/// A model as a client sees it. `created`, not `created_at`: this is the one object of OpenAI's that says so.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelObject {
    id: String,
    #[schema(schema_with = build::model)]
    object: &'static str,
    created: i64,
    owned_by: String,
}

impl ModelObject {
    fn base(model: &BaseModel) -> Self {
        let owned_by = "system".to_owned();
        Self {
            id: model.name.clone(),
            object: "model",
            created: model.created_at.unix_timestamp(),
            owned_by,
        }
    }

    fn fine_tuned(model: &FineTunedModel, owner: OrgId) -> Self {
        let owned_by = owner.to_string();
        Self {
            id: model.name.clone(),
            object: "model",
            created: model.created_at.unix_timestamp(),
            owned_by,
        }
    }
}

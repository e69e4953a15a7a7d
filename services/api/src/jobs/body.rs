//! The body of a new job as the OpenAPI document shows it. `request.rs` and `knobs.rs` are what reads it.
#![expect(dead_code, reason = "these types are described, never made")]

use std::collections::BTreeMap;

use domain::limits::{MAX_METADATA_KEY_CHARS, MAX_METADATA_PAIRS, MAX_METADATA_VALUE_CHARS};
use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Type};

use super::integrations::Integration;
use super::settings::{DpoHyperparameters, SupervisedHyperparameters, TrainingSettings, seed};
use crate::openapi::build::{nullable, word};

/// What to train. Fields that are not named here are left alone.
#[derive(ToSchema)]
#[schema(example = json!({
    "model": "smollm2-135m",
    "training_file": "file-0193b0c28c9f7d3aa1f40b6c3a2f9d10",
    "suffix": "support",
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
    "attune": {"lora": {"rank": 16}},
}))]
pub(crate) struct NewFineTuningJob {
    /// A base model, or a fine-tuned one to go on from.
    #[schema(min_length = 1)]
    model: String,
    /// The id of an uploaded file with the purpose `fine-tune`.
    #[schema(min_length = 1)]
    training_file: String,
    /// The same for rows that the model is measured on.
    #[schema(min_length = 1)]
    validation_file: Option<String>,
    /// A part of the new model's name, in which what is no letter, digit, `-`, `_` or `.` becomes a `-`.
    #[schema(min_length = 1, max_length = 64)]
    suffix: Option<String>,
    /// What is learned, and how.
    method: Option<Method>,
    /// The older place for the settings of the supervised method.
    #[schema(deprecated)]
    hyperparameters: Option<SupervisedHyperparameters>,
    /// Makes a run repeatable. It is drawn when it is absent.
    #[schema(required = false, schema_with = seed)]
    seed: Option<u64>,
    /// Notes of yours, by which lists can be filtered.
    #[schema(required = false, schema_with = metadata)]
    metadata: Option<BTreeMap<String, String>>,
    /// Services that are told how the job goes. A project that wants Weights & Biases needs an account, which the
    /// operator sets.
    #[schema(max_items = 5)]
    integrations: Option<Vec<Integration>>,
    /// Every setting that OpenAI has no place for. OpenAI's clients send it with `extra_body`.
    attune: Option<TrainingSettings>,
}

/// The request of a new job, and how much of its file is shown.
#[derive(ToSchema)]
pub(crate) struct DatasetToPreview {
    #[serde(flatten)]
    job: NewFineTuningJob,
    /// Rows to show: 5 unless set.
    #[schema(minimum = 1, maximum = 20)]
    n_rows: Option<u64>,
}

/// The objects of other methods may be sent along; `type` says which one counts.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = FineTuningMethod)]
pub(crate) enum Method {
    Supervised(SupervisedMethod),
    Dpo(DpoMethod),
}

/// Conversations to learn from.
#[derive(ToSchema)]
pub(crate) struct SupervisedMethod {
    #[schema(schema_with = supervised)]
    r#type: &'static str,
    supervised: Option<Supervised>,
}

#[derive(ToSchema)]
pub(crate) struct Supervised {
    hyperparameters: Option<SupervisedHyperparameters>,
}

/// Pairs of a better and a worse answer.
#[derive(ToSchema)]
pub(crate) struct DpoMethod {
    #[schema(schema_with = dpo)]
    r#type: &'static str,
    dpo: Option<Dpo>,
}

#[derive(ToSchema)]
pub(crate) struct Dpo {
    hyperparameters: Option<DpoHyperparameters>,
}

fn supervised() -> Schema {
    word(&["supervised"]).into()
}

fn dpo() -> Schema {
    word(&["dpo"]).into()
}

fn metadata() -> Schema {
    let text = |max: usize| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .max_length(Some(max))
    };
    let pairs = ObjectBuilder::new()
        .schema_type(Type::Object)
        .max_properties(Some(MAX_METADATA_PAIRS))
        .property_names(Some(text(MAX_METADATA_KEY_CHARS)))
        .additional_properties(Some(AdditionalProperties::<Schema>::from(text(
            MAX_METADATA_VALUE_CHARS,
        ))));
    nullable(pairs).into()
}

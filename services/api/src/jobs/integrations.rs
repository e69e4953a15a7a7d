//! `integrations`: other services that are told how a job goes. The one there is, is Weights & Biases.

use domain::FieldError;
use domain::limits::{MAX_INTEGRATIONS, MAX_WANDB_NAME_CHARS, MAX_WANDB_TAG_CHARS, MAX_WANDB_TAGS};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Object, Schema};

use crate::openapi::build::{nullable, word};

/// What no name of a project or an entity holds: they stand in paths.
const NOT_IN_NAMES: &[char] = &['/', '\\', '#', '?', '%', ':'];

/// A service that a job reports to, as it is asked for, stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = FineTuningIntegration)]
pub(crate) struct Integration {
    #[schema(schema_with = wandb)]
    r#type: Kind,
    pub(crate) wandb: Wandb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Wandb,
}

/// A run at Weights & Biases. The key that it is made with is the project's: it is never part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = WandbIntegration)]
pub(crate) struct Wandb {
    /// The project there, which is made if it is not there.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^/\\#?%:]+$")]
    pub(crate) project: String,
    /// What the run is called; the job's id if this is absent.
    #[schema(min_length = 1, max_length = 128)]
    pub(crate) name: Option<String>,
    /// The user or team that it belongs to; that of the project's account if this is absent.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^/\\#?%:]+$")]
    pub(crate) entity: Option<String>,
    #[schema(required = false, schema_with = tags)]
    pub(crate) tags: Vec<String>,
}

/// What a job reports to.
///
/// # Errors
/// The first field that cannot be used, by its full path.
pub(super) fn read(fields: &Map<String, Value>) -> Result<Vec<Integration>, FieldError> {
    let list = match fields.get("integrations") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(FieldError::new("integrations", "must be a list")),
    };
    if list.len() > MAX_INTEGRATIONS {
        let message = format!(
            "has {} entries; at most {MAX_INTEGRATIONS} are allowed",
            list.len()
        );
        return Err(FieldError::new("integrations", message));
    }
    let list = list.iter().enumerate();
    list.map(|(index, value)| integration(&format!("integrations[{index}]"), value))
        .collect()
}

fn integration(path: &str, value: &Value) -> Result<Integration, FieldError> {
    if value.get("type").and_then(Value::as_str) != Some("wandb") {
        let message = "must be `wandb`, the only service that jobs report to";
        return Err(FieldError::new(format!("{path}.type"), message));
    }
    let path = format!("{path}.wandb");
    let Some(fields) = value.get("wandb").and_then(Value::as_object) else {
        return Err(FieldError::new(path, "must be a JSON object"));
    };
    let project = text(&path, fields, "project", NOT_IN_NAMES)?;
    let project =
        project.ok_or_else(|| FieldError::new(format!("{path}.project"), "is required"))?;
    Ok(Integration {
        r#type: Kind::Wandb,
        wandb: Wandb {
            project,
            name: text(&path, fields, "name", &[])?,
            entity: text(&path, fields, "entity", NOT_IN_NAMES)?,
            tags: read_tags(&format!("{path}.tags"), fields.get("tags"))?,
        },
    })
}

fn text(
    path: &str,
    fields: &Map<String, Value>,
    name: &str,
    forbidden: &[char],
) -> Result<Option<String>, FieldError> {
    let error = |message: String| FieldError::new(format!("{path}.{name}"), message);
    let value = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let text = value
        .as_str()
        .filter(|text| is_short(text, MAX_WANDB_NAME_CHARS))
        .ok_or_else(|| {
            error(format!(
                "must be a string of 1 to {MAX_WANDB_NAME_CHARS} characters"
            ))
        })?;
    match text.chars().find(|c| forbidden.contains(c)) {
        Some(c) => Err(error(format!("must not hold `{c}`"))),
        None => Ok(Some(text.to_owned())),
    }
}

fn read_tags(path: &str, value: Option<&Value>) -> Result<Vec<String>, FieldError> {
    let error = |message: String| FieldError::new(path, message);
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_WANDB_TAGS => list,
        Some(_) => {
            return Err(error(format!(
                "must be a list of at most {MAX_WANDB_TAGS} tags"
            )));
        }
    };
    let tags = list.iter().map(|tag| {
        let tag = tag
            .as_str()
            .filter(|tag| is_short(tag, MAX_WANDB_TAG_CHARS));
        tag.map(str::to_owned).ok_or_else(|| {
            error(format!(
                "each must be a string of 1 to {MAX_WANDB_TAG_CHARS} characters"
            ))
        })
    });
    tags.collect()
}

fn is_short(text: &str, max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= max
}

fn wandb() -> Object {
    word(&["wandb"])
}

fn tags() -> Schema {
    let tag = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_WANDB_TAG_CHARS));
    let list = ArrayBuilder::new()
        .description(Some(
            "Beside `attune/finetune`, `attune/` with the base model, and `attune/` with the job's id.",
        ))
        .items(tag)
        .max_items(Some(MAX_WANDB_TAGS));
    nullable(list).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(integrations: Value) -> Result<Vec<Integration>, FieldError> {
        let mut fields = Map::new();
        fields.insert("integrations".to_owned(), integrations);
        read(&fields)
    }

    fn wandb(fields: &Value) -> Value {
        json!([{"type": "wandb", "wandb": fields}])
    }

    #[test]
    fn what_is_read_is_shown_with_every_field() {
        let asked = json!({"project": "support", "tags": ["a"], "new_field": 1});
        let read = given(wandb(&asked)).unwrap();
        assert_eq!(
            serde_json::to_value(&read).unwrap(),
            wandb(&json!({"project": "support", "name": null, "entity": null, "tags": ["a"]}))
        );
        let stored = serde_json::to_value(&read[0]).unwrap();
        assert_eq!(
            serde_json::from_value::<Integration>(stored).unwrap(),
            read[0]
        );
        for none in [json!(null), json!([])] {
            assert_eq!(given(none), Ok(Vec::new()));
        }
    }

    #[test]
    fn every_fault_names_its_field() {
        let long = "x".repeat(129);
        let many = vec!["t"; 33];
        for (integrations, field) in [
            (json!("wandb"), "integrations"),
            (json!(vec![json!({}); 6]), "integrations"),
            (json!([{"type": "mlflow"}]), "integrations[0].type"),
            (json!([{"type": "wandb"}]), "integrations[0].wandb"),
            (wandb(&json!({})), "integrations[0].wandb.project"),
            (
                wandb(&json!({"project": ""})),
                "integrations[0].wandb.project",
            ),
            (
                wandb(&json!({"project": long})),
                "integrations[0].wandb.project",
            ),
            (
                wandb(&json!({"project": "a/b"})),
                "integrations[0].wandb.project",
            ),
            (
                wandb(&json!({"project": "p", "name": 3})),
                "integrations[0].wandb.name",
            ),
            (
                wandb(&json!({"project": "p", "entity": "a/../b"})),
                "integrations[0].wandb.entity",
            ),
            (
                wandb(&json!({"project": "p", "tags": "t"})),
                "integrations[0].wandb.tags",
            ),
            (
                wandb(&json!({"project": "p", "tags": many})),
                "integrations[0].wandb.tags",
            ),
            (
                wandb(&json!({"project": "p", "tags": ["x".repeat(65)]})),
                "integrations[0].wandb.tags",
            ),
        ] {
            assert_eq!(given(integrations).unwrap_err().field, field);
        }
    }
}

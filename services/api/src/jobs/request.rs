//! The body of a new job: what can be said about it without looking anything up.

use std::collections::BTreeMap;

use domain::config::Replay;
use domain::limits::{
    MAX_METADATA_KEY_CHARS, MAX_METADATA_PAIRS, MAX_METADATA_VALUE_CHARS, MAX_SUFFIX_CHARS,
};
use domain::{FieldError, Hyperparameters};
use serde_json::{Map, Value};

use super::integrations::{self, Integration};
use super::knobs;

/// A request whose every field is of the right type and within its range. Fields that are not known here are
/// left alone: clients are newer than we are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NewJob {
    pub(super) model: String,
    /// Not parsed: what is no id names no file, and is answered like an id that nothing has.
    pub(super) training_file: String,
    pub(super) validation_file: Option<String>,
    pub(super) suffix: Option<String>,
    pub(super) asked: Hyperparameters,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    pub(super) integrations: Vec<Integration>,
}

impl NewJob {
    /// # Errors
    /// The first field that cannot be used, by its full path.
    pub(super) fn read(body: &Value) -> Result<Self, FieldError> {
        let fields = body
            .as_object()
            .ok_or_else(|| FieldError::new("", "must be a JSON object"))?;
        Ok(Self {
            model: required(fields, "model")?,
            training_file: required(fields, "training_file")?,
            validation_file: text(fields, "validation_file")?,
            suffix: suffix(fields)?,
            asked: servable(knobs::gather(fields)?)?,
            metadata: metadata(fields)?,
            integrations: integrations::read(fields)?,
        })
    }

    /// The file whose rows are mixed in.
    pub(super) fn replay_file(&self) -> Option<&str> {
        self.asked.replay.as_ref()?.file.as_deref()
    }
}

/// What the service cannot carry out is refused before it is queued.
fn servable(asked: Hyperparameters) -> Result<Hyperparameters, FieldError> {
    if let Some(Replay { file: None, .. }) = asked.replay {
        let message = "is required: the id of an uploaded file whose rows are mixed in";
        return Err(FieldError::new("attune.replay.file", message));
    }
    Ok(asked)
}

fn required(fields: &Map<String, Value>, name: &str) -> Result<String, FieldError> {
    text(fields, name)?.ok_or_else(|| FieldError::new(name, "is required"))
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, FieldError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(FieldError::new(name, "must be a string that is not empty")),
    }
}

fn suffix(fields: &Map<String, Value>) -> Result<Option<String>, FieldError> {
    let Some(suffix) = text(fields, "suffix")? else {
        return Ok(None);
    };
    if suffix.chars().count() > MAX_SUFFIX_CHARS {
        let message = format!("must have between 1 and {MAX_SUFFIX_CHARS} characters");
        return Err(FieldError::new("suffix", message));
    }
    Ok(Some(suffix))
}

/// The client's notes, which a job and a batch may carry.
pub(crate) fn metadata(
    fields: &Map<String, Value>,
) -> Result<Option<BTreeMap<String, String>>, FieldError> {
    let error = |message: String| FieldError::new("metadata", message);
    let pairs = match fields.get("metadata") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(pairs)) => pairs,
        Some(_) => return Err(error("must be a JSON object of strings".to_owned())),
    };
    if pairs.len() > MAX_METADATA_PAIRS {
        return Err(error(format!(
            "has {} pairs; at most {MAX_METADATA_PAIRS} are allowed",
            pairs.len()
        )));
    }
    let mut metadata = BTreeMap::new();
    for (key, value) in pairs {
        let shown: String = key.chars().take(MAX_METADATA_KEY_CHARS).collect();
        if key.chars().count() > MAX_METADATA_KEY_CHARS {
            return Err(error(format!(
                "has a key longer than {MAX_METADATA_KEY_CHARS} characters: `{shown}…`"
            )));
        }
        let value = value
            .as_str()
            .filter(|value| value.chars().count() <= MAX_METADATA_VALUE_CHARS)
            .ok_or_else(|| {
                error(format!(
                    "`{shown}` must be a string of at most {MAX_METADATA_VALUE_CHARS} characters"
                ))
            })?;
        metadata.insert(key.clone(), value.to_owned());
    }
    Ok((!metadata.is_empty()).then_some(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The smallest request, with other fields on top.
    fn request(fields: Value) -> Value {
        let mut request = json!({"model": "m", "training_file": "file-1"});
        let Value::Object(fields) = fields else {
            unreachable!("tests give objects")
        };
        request.as_object_mut().unwrap().extend(fields);
        request
    }

    #[test]
    fn every_fault_names_its_field() {
        let many: Map<String, Value> = (0..17).map(|n| (n.to_string(), json!(""))).collect();
        for (fields, field) in [
            (json!({"model": null}), "model"),
            (json!({"model": ""}), "model"),
            (json!({"training_file": 3}), "training_file"),
            (json!({"validation_file": ["a"]}), "validation_file"),
            (json!({"suffix": ""}), "suffix"),
            (json!({"suffix": "x".repeat(65)}), "suffix"),
            (
                json!({"integrations": [{"type": "wandb"}]}),
                "integrations[0].wandb",
            ),
            (
                json!({"attune": {"replay": {"ratio": 0.1}}}),
                "attune.replay.file",
            ),
            (json!({"metadata": []}), "metadata"),
            (json!({"metadata": {"a": 1}}), "metadata"),
            (json!({"metadata": {"x".repeat(65): "1"}}), "metadata"),
            (json!({"metadata": {"a": "x".repeat(513)}}), "metadata"),
            (json!({"metadata": many}), "metadata"),
            (
                json!({"hyperparameters": {"n_epochs": 51}}),
                "hyperparameters.n_epochs",
            ),
        ] {
            let error = NewJob::read(&request(fields.clone())).unwrap_err();
            assert_eq!(error.field, field, "{fields}");
        }
    }

    #[test]
    fn what_is_null_or_unknown_is_left_alone() {
        let read = NewJob::read(&request(json!({
            "suffix": null, "metadata": {}, "integrations": [], "method": null, "brand_new": {"x": 1},
        })));
        let read = read.unwrap();
        assert_eq!((read.suffix, read.metadata), (None, None));
    }

    #[test]
    fn a_suffix_counts_characters_and_may_hold_any() {
        for suffix in ["é".repeat(64), "our bot: v2/🙂".to_owned()] {
            let read = NewJob::read(&request(json!({"suffix": suffix}))).unwrap();
            assert_eq!(read.suffix, Some(suffix));
        }
    }
}

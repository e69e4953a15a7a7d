//! What a run was a function of, as hashes.

use domain::TrainingConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::checkpoint::Identity;
use crate::train::Run;

/// SHA-256 of each thing that the model follows from, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// Of the settings as canonical JSON: keys in order, no space between.
    pub config: String,
    /// Of the base model's files.
    pub base: String,
    /// Of the training file's tokens and what of them is supervised.
    pub data: String,
    /// Of the rows that are mixed in.
    pub replay: Option<String>,
    /// Of the validation file's.
    pub valid: Option<String>,
    /// Of the adapter that the run started from, or of the file of tuned weights.
    pub initial: Option<String>,
    /// The kernels that computed it, by name: other ones round otherwise.
    pub kernels: String,
}

impl Hashes {
    pub(super) fn of(run: &Run<'_>) -> Self {
        let identity = Identity::of(run);
        Self {
            config: of_config(&identity.config),
            base: identity.base,
            data: identity.data,
            replay: identity.replay,
            valid: run.valid.map(|rows| rows.report.fingerprint.clone()),
            initial: identity.initial,
            kernels: identity.kernels,
        }
    }
}

fn of_config(config: &TrainingConfig) -> String {
    let value = serde_json::to_value(config).expect("settings are JSON");
    let mut text = String::new();
    write_canonical(&value, &mut text);
    hex::encode(Sha256::digest(text))
}

/// Whatever order a map keeps its keys in.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(value, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_json_has_its_keys_in_order_at_every_depth() {
        let value: Value =
            serde_json::from_str(r#"{"b": [1, {"d": "\"", "c": null}], "a": 0.5}"#).unwrap();
        let mut text = String::new();
        write_canonical(&value, &mut text);
        assert_eq!(text, r#"{"a":0.5,"b":[1,{"c":null,"d":"\""}]}"#);
    }

    #[test]
    fn a_config_has_another_hash_as_soon_as_a_setting_differs() {
        let config = TrainingConfig::default();
        let other = TrainingConfig {
            seed: config.seed + 1,
            ..config.clone()
        };
        assert_eq!(of_config(&config), of_config(&config.clone()));
        assert_ne!(of_config(&config), of_config(&other));
    }
}

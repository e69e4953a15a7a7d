//! The NUL character. JSON may carry it (`\u0000`), Postgres' `text` and `jsonb` cannot.
//!
//! What a client named is refused with the field's name, so that nothing is altered behind its back. What we write
//! ourselves, such as an event that quotes a row of a dataset, must not fail for it: there the character is replaced.

use std::borrow::Cow;

use serde_json::Value;

use crate::StoreError;

/// Refuses a text that holds a NUL character.
pub fn refuse(field: &'static str, text: &str) -> Result<(), StoreError> {
    if text.contains('\0') {
        Err(StoreError::NulCharacter { field })
    } else {
        Ok(())
    }
}

/// Refuses an optional text that holds a NUL character.
pub fn refuse_optional(field: &'static str, text: Option<&str>) -> Result<(), StoreError> {
    text.map_or(Ok(()), |text| refuse(field, text))
}

/// Refuses a JSON value that holds a NUL character in a string or a key, at any depth.
pub fn refuse_json(field: &'static str, value: &Value) -> Result<(), StoreError> {
    if holds_nul(value) {
        Err(StoreError::NulCharacter { field })
    } else {
        Ok(())
    }
}

/// The text with U+FFFD, the replacement character, for every NUL.
pub fn replace(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The value with U+FFFD for every NUL in strings and keys.
pub fn replace_json(value: &Value) -> Cow<'_, Value> {
    if holds_nul(value) {
        Cow::Owned(replaced(value))
    } else {
        Cow::Borrowed(value)
    }
}

/// serde_json bounds the depth of what it parses at 128, so recursion is safe.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn replaced(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(replace(text).into_owned()),
        Value::Array(values) => values.iter().map(replaced).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (replace(key).into_owned(), replaced(value)))
            .collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nul_is_found_in_keys_and_at_depth() {
        assert!(refuse_json("metadata", &json!({"a": [{"b\u{0}": 1}]})).is_err());
        assert!(refuse_json("metadata", &json!({"a": [{"b": "\u{0}"}]})).is_err());
        assert!(refuse_json("metadata", &json!({"a": [{"b": "\\u0000"}]})).is_ok());
    }

    #[test]
    fn a_replaced_text_keeps_everything_else() {
        assert_eq!(replace("a\u{0}b"), "a\u{fffd}b");
        assert_eq!(
            *replace_json(&json!({"k\u{0}": ["x\u{0}", 1]})),
            json!({"k\u{fffd}": ["x\u{fffd}", 1]})
        );
    }
}

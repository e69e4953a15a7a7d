//! Reads typed values out of a JSON object; every refusal names the field.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ChatError;

/// The fields of the request. `null` counts as absent, as with OpenAI.
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a str>, ChatError> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, ChatError> {
        self.typed(name, "a boolean", Value::as_bool)
    }

    pub(crate) fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, ChatError> {
        self.typed(name, "an array", Value::as_array)
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, ChatError> {
        self.typed(name, "an object", Value::as_object)
    }

    pub(crate) fn i64(&self, name: &str) -> Result<Option<i64>, ChatError> {
        self.typed(name, "an integer", whole)
    }

    /// An integer in the range.
    pub(crate) fn count(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ChatError> {
        let Some(value) = self.i64(name)? else {
            return Ok(None);
        };
        usize::try_from(value)
            .ok()
            .filter(|count| range.contains(count))
            .map(Some)
            .ok_or_else(|| {
                let (least, most) = range.into_inner();
                let bounds = match most {
                    usize::MAX => format!("at least {least}"),
                    _ => format!("between {least} and {most}"),
                };
                ChatError::invalid(name, format!("`{name}` is {value}; it must be {bounds}."))
            })
    }

    /// A number in the range.
    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ChatError> {
        let Some(value) = self.typed(name, "a number", Value::as_f64)? else {
            return Ok(None);
        };
        if range.contains(&value) {
            return Ok(Some(value));
        }
        let (least, most) = range.into_inner();
        let message = format!("`{name}` is {value}; it must be between {least} and {most}.");
        Err(ChatError::invalid(name, message))
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ChatError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| wrong_type(name, expected, value))
    }
}

/// The refusal of a value of another type.
pub(crate) fn wrong_type(name: &str, expected: &str, value: &Value) -> ChatError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ChatError::Invalid {
        message: format!("`{name}` must be {expected}, not {found}."),
        param: Some(name.to_owned()),
        code: Some("invalid_type"),
    }
}

/// An integer, also when a client writes it as `5.0`.
fn whole(value: &Value) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be whole and exact"
    )]
    let from_float = |number: f64| {
        (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
    };
    value.as_i64().or_else(|| {
        value
            .as_f64()
            .filter(|_| value.is_f64())
            .and_then(from_float)
    })
}

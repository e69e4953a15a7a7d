//! The bodies of uploads' requests, field by field, so that an error can name the one at fault.

use domain::FieldError;
use domain::upload::Completion;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::files::intake::EXPIRES_AFTER_SECS;

const MAX_TEXT_CHARS: usize = 1024;

/// The body's fields. [`crate::extract::JsonBody`] gives nothing but objects.
pub(crate) fn of(body: &Value) -> Result<&Map<String, Value>, FieldError> {
    body.as_object()
        .ok_or_else(|| FieldError::new("", "must be a JSON object"))
}

/// A string that must be there and say something.
pub(crate) fn text<'a>(
    fields: &'a Map<String, Value>,
    name: &'static str,
) -> Result<&'a str, FieldError> {
    match fields.get(name) {
        None | Some(Value::Null) => Err(FieldError::new(name, "is required")),
        Some(Value::String(text)) if (1..=MAX_TEXT_CHARS).contains(&text.chars().count()) => {
            Ok(text)
        }
        Some(_) => Err(FieldError::new(
            name,
            format!("must be a string of 1 to {MAX_TEXT_CHARS} characters"),
        )),
    }
}

/// `{"anchor": "created_at", "seconds": N}`, as N.
pub(crate) fn expires_after(
    fields: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<i64>, FieldError> {
    let asked = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(asked) => asked,
    };
    if asked["anchor"] != "created_at" {
        let message = "must be `created_at`: nothing else counts as the beginning";
        return Err(FieldError::new(format!("{name}.anchor"), message));
    }
    let seconds = asked["seconds"]
        .as_i64()
        .filter(|seconds| EXPIRES_AFTER_SECS.contains(seconds));
    let (min, max) = EXPIRES_AFTER_SECS.into_inner();
    let message = format!("must be a whole number between {min} and {max}");
    seconds
        .map(Some)
        .ok_or_else(|| FieldError::new(format!("{name}.seconds"), message))
}

/// `{"part_ids": […], "md5": …}`.
pub(super) fn completion(body: &Value, max_parts: u64) -> Result<Completion, ApiError> {
    let fields = of(body)?;
    let refused = |message: String| ApiError::from(FieldError::new("part_ids", message));
    let listed = match fields.get("part_ids") {
        None | Some(Value::Null) => return Err(refused("is required".to_owned())),
        Some(Value::Array(ids)) if !ids.is_empty() && ids.len() as u64 <= max_parts => ids,
        Some(_) => {
            return Err(refused(format!(
                "must be a list of 1 to {max_parts} part ids, in the file's order"
            )));
        }
    };
    let mut part_ids = Vec::with_capacity(listed.len());
    for id in listed {
        let text = id
            .as_str()
            .ok_or_else(|| refused("must hold strings only".to_owned()))?;
        // What is no id is no part of this upload, like an id that nothing has.
        part_ids.push(text.parse().map_err(|_| super::complete::no_part(text))?);
    }
    Ok(Completion {
        part_ids,
        md5: md5(fields)?,
    })
}

fn md5(fields: &Map<String, Value>) -> Result<Option<String>, FieldError> {
    let digits = match fields.get("md5") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_str().unwrap_or_default().to_ascii_lowercase(),
    };
    if digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Some(digits));
    }
    let message = "must be the file's MD5 in 32 hexadecimal digits";
    Err(FieldError::new("md5", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_expiry_needs_both_of_its_halves() {
        let read = |value: Value| expires_after(json!({"x": value}).as_object().unwrap(), "x");
        assert_eq!(read(Value::Null), Ok(None));
        let whole = json!({"anchor": "created_at", "seconds": 3600});
        assert_eq!(read(whole), Ok(Some(3600)));
        for (value, field) in [
            (json!(5), "x.anchor"),
            (json!({"anchor": "now", "seconds": 3600}), "x.anchor"),
            (json!({"anchor": "created_at"}), "x.seconds"),
            (
                json!({"anchor": "created_at", "seconds": 3599}),
                "x.seconds",
            ),
            (
                json!({"anchor": "created_at", "seconds": "3600"}),
                "x.seconds",
            ),
        ] {
            assert_eq!(read(value.clone()).unwrap_err().field, field, "{value}");
        }
    }
}

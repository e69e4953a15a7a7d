//! JSON, strictly: no key twice in one object, no NUL character, at most 127 levels.
//!
//! `serde_json` alone lets the last of two equal keys win, so that a row would silently mean
//! something else than its author reads in it; and Postgres refuses NUL in text, much later.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::RowErrorKind;

/// `serde_json` counts this many levels before it gives up, which keeps the stack small.
const MAX_DEPTH: usize = 127;
/// Keys and the like are quoted in errors up to this many characters.
const MAX_QUOTED_CHARS: usize = 64;

/// Parse one line.
///
/// # Errors
/// Why it is not JSON as we want it.
pub(crate) fn parse(line: &str) -> Result<Value, RowErrorKind> {
    let duplicate_key = RefCell::new(None);
    let mut input = serde_json::Deserializer::from_str(line);
    let parsed = Strict {
        duplicate_key: &duplicate_key,
    }
    .deserialize(&mut input)
    .and_then(|value| input.end().map(|()| value));
    let value = match (parsed, duplicate_key.into_inner()) {
        (Ok(value), _) => value,
        (Err(error), Some(key)) => {
            return Err(RowErrorKind::DuplicateKey {
                key: quoted(&key),
                column: error.column(),
            });
        }
        (Err(error), None) => return Err(syntax_error(&error)),
    };
    match find_nul(&value) {
        Some(field) => Err(RowErrorKind::Nul { field }),
        None => Ok(value),
    }
}

/// The beginning of `text`, for an error.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// What kind of JSON `value` is, with its article.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn syntax_error(error: &serde_json::Error) -> RowErrorKind {
    let text = error.to_string();
    // serde_json has no public kind for this one.
    if text.starts_with("recursion limit exceeded") {
        return RowErrorKind::TooDeep {
            max_depth: MAX_DEPTH,
        };
    }
    if error.is_eof() {
        return RowErrorKind::CutShort;
    }
    let reason = text
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned();
    RowErrorKind::NotJson {
        column: error.column(),
        reason,
    }
}

/// The path of the first NUL. Recursion is as deep as [`MAX_DEPTH`] at most.
fn find_nul(value: &Value) -> Option<String> {
    let join = |step: String, inner: String| {
        let separator = if inner.is_empty() || inner.starts_with('[') {
            ""
        } else {
            "."
        };
        format!("{step}{separator}{inner}")
    };
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| Some(join(format!("[{index}]"), find_nul(item)?))),
        Value::Object(fields) => fields.iter().find_map(|(key, item)| {
            let shown = quoted(&key.replace('\0', "\\u0000"));
            if key.contains('\0') {
                Some(shown)
            } else {
                Some(join(shown, find_nul(item)?))
            }
        }),
        _ => None,
    }
}

/// Deserializes a [`Value`] and stops at a key that its object already has.
#[derive(Clone, Copy)]
struct Strict<'a> {
    /// The key at fault, told apart from a syntax error by being there.
    duplicate_key: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = input.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = input.next_key::<String>()? {
            if fields.contains_key(&key) {
                self.duplicate_key.replace(Some(key));
                return Err(A::Error::custom("duplicate key"));
            }
            let value = input.next_value_seed(self)?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_are_refused_at_every_level() {
        for line in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#] {
            let error = parse(line).unwrap_err();
            assert!(matches!(&error, RowErrorKind::DuplicateKey { key, .. } if key == "a"));
        }
        assert!(parse(r#"[{"a":1},{"a":{"a":1}}]"#).is_ok());
    }

    #[test]
    fn a_million_levels_are_an_error_and_no_overflow() {
        let deep = "[".repeat(1_000_000);
        assert!(matches!(parse(&deep), Err(RowErrorKind::TooDeep { .. })));
        let deep = r#"{"a":"#.repeat(1_000_000);
        assert!(matches!(parse(&deep), Err(RowErrorKind::TooDeep { .. })));
        let allowed = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse(&allowed).is_ok());
    }

    #[test]
    fn a_nul_is_named_by_its_path() {
        let error = parse(r#"{"messages":[{"role":"user"},{"content":"a\u0000b"}]}"#).unwrap_err();
        assert!(
            matches!(&error, RowErrorKind::Nul { field } if field == "messages[1].content"),
            "{error}"
        );
        assert!(matches!(
            parse(r#"{"a\u0000":1}"#),
            Err(RowErrorKind::Nul { .. })
        ));
    }

    #[test]
    fn what_is_not_json_says_where() {
        let error = parse(r#"{"a": nope}"#).unwrap_err();
        assert!(
            matches!(error, RowErrorKind::NotJson { column: 8, .. }),
            "{error}"
        );
        assert!(matches!(
            parse(r#"{"a": [1, "#),
            Err(RowErrorKind::CutShort)
        ));
        assert!(matches!(parse("{} {}"), Err(RowErrorKind::NotJson { .. })));
        assert!(matches!(
            parse("{'a': 1}"),
            Err(RowErrorKind::NotJson { .. })
        ));
        assert!(matches!(parse("[NaN]"), Err(RowErrorKind::NotJson { .. })));
        assert!(matches!(
            parse("[1e999]"),
            Err(RowErrorKind::NotJson { .. })
        ));
    }
}

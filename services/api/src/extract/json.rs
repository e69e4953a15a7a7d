//! JSON bodies, read within a limit and more strictly than serde does by itself.
//!
//! A key that occurs twice would lose one of its values in silence, and a NUL character cannot be stored in
//! Postgres: both are refused here, at the edge.

use std::fmt;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{ApiError, ErrorCode};

/// Settings of a job and the like: nobody needs more.
const MAX_JSON_BYTES: usize = 1 << 20;
/// A chat with a long history; the model's context ends it long before.
const MAX_RAW_BYTES: usize = 8 << 20;

/// A JSON object, whatever its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonBody(pub Value);

/// A JSON object and the very bytes it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct RawBody {
    /// What was sent.
    pub bytes: Bytes,
    /// What it says.
    pub value: Value,
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request, MAX_JSON_BYTES).await?;
        object(&bytes, strict(&bytes)).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request, MAX_RAW_BYTES).await?;
        let value = object(&bytes, serde_json::from_slice(&bytes))?;
        Ok(Self { bytes, value })
    }
}

fn strict(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

async fn read(request: Request, max_bytes: usize) -> Result<Bytes, ApiError> {
    if !is_json(request.headers()) {
        return Err(ApiError::unsupported_media_type("application/json"));
    }
    let too_large = || ApiError::too_large("request's body", max_bytes as u64);
    if declared_length(request.headers()).is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large());
    }
    collect(request.into_body(), max_bytes)
        .await?
        .ok_or_else(too_large)
}

/// The whole body, or `None` as soon as it is too long.
async fn collect(body: Body, max_bytes: usize) -> Result<Option<Bytes>, ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| {
            ApiError::invalid_request("The request's body broke off before its end.")
        })?;
        if bytes.len() + chunk.len() > max_bytes {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn object(bytes: &[u8], parsed: Result<Value, serde_json::Error>) -> Result<Value, ApiError> {
    let refused =
        |message: String| Err(ApiError::invalid_request(message).code(ErrorCode::InvalidJson));
    match parsed {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => refused("The request's body must be a JSON object.".to_owned()),
        Err(_) if bytes.is_empty() => {
            refused("The request's body is empty; a JSON object is needed.".to_owned())
        }
        Err(error) => refused(format!("The request's body is not valid JSON: {error}.")),
    }
}

/// Builds a [`Value`], refusing doubled keys and NUL characters. Depth is bounded by serde_json itself.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        if text.contains('\0') {
            return Err(E::custom("a string holds a NUL character"));
        }
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key.contains('\0') {
                return Err(A::Error::custom("a key holds a NUL character"));
            }
            if map.contains_key(&key) {
                let key: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format!("the key `{key}` occurs twice")));
            }
            map.insert(key, entries.next_value_seed(Strict)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    async fn status_of(content_type: &str, body: impl Into<Body>) -> u16 {
        let request = Request::post("/")
            .header(CONTENT_TYPE, content_type)
            .body(body.into())
            .unwrap();
        match JsonBody::from_request(request, &()).await {
            Ok(_) => 200,
            Err(error) => error.into_response().status().as_u16(),
        }
    }

    #[tokio::test]
    async fn what_is_no_good_json_object_is_a_400() {
        let deep = "[".repeat(1_000_000);
        for body in [
            "",
            "{",
            "{} {}",
            "[]",
            "3",
            r#"{"a":1,"a":2}"#,
            r#"{"a":"x\u0000"}"#,
            "{\"a\":\"\u{0}\"}",
            &deep,
        ] {
            assert_eq!(
                status_of("application/json", body.to_owned()).await,
                400,
                "{body:.40}"
            );
        }
        assert_eq!(
            status_of("application/json", b"{\"a\":\"\xff\"}".to_vec()).await,
            400
        );
    }

    #[tokio::test]
    async fn a_body_of_another_type_is_a_415_and_a_long_one_a_413() {
        assert_eq!(status_of("text/plain", "{}").await, 415);
        assert_eq!(
            status_of("application/json; charset=utf-8", "{}").await,
            200
        );
        assert_eq!(
            status_of("application/json", vec![b' '; MAX_JSON_BYTES + 1]).await,
            413
        );
    }

    #[test]
    fn a_strict_value_is_the_value() {
        let text = r#"{"a":[1,-2,3.5,null,true,"x"],"b":{"c":{}}}"#;
        assert_eq!(
            strict(text.as_bytes()).unwrap(),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }
}

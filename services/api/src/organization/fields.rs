//! Fields that several of the organization's endpoints read, with errors that name them.

use std::str::FromStr;

use domain::access::WordError;
use domain::{Role, Scopes};
use serde_json::Value;
use store::api_keys::Rights;
use time::{Duration, OffsetDateTime};

use crate::error::{ApiError, Thing};

/// Characters of a name of a project, a key or a service account.
const MAX_NAME_CHARS: usize = 256;
/// The longest address there can be (RFC 5321).
const MAX_EMAIL_BYTES: usize = 254;
/// Ten years: who wants more wants a key that does not expire.
const MAX_LIFETIME_SECS: u64 = 10 * 366 * 24 * 3600;
/// How long an old key may stay good beside the one that replaces it.
const MAX_GRACE_SECS: u64 = 30 * 24 * 3600;
const DEFAULT_GRACE_SECS: u64 = 24 * 3600;

/// The required `name`.
pub(super) fn name(body: &Value) -> Result<String, ApiError> {
    optional_name(body)?.ok_or_else(|| ApiError::invalid("name", "`name` is missing."))
}

/// The `name`, if there is one.
pub(super) fn optional_name(body: &Value) -> Result<Option<String>, ApiError> {
    let Some(text) = text(body, "name")? else {
        return Ok(None);
    };
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_NAME_CHARS {
        let message = format!("`name` must have 1 to {MAX_NAME_CHARS} characters.");
        return Err(ApiError::invalid("name", message));
    }
    Ok(Some(text.to_owned()))
}

/// The `email`, if there is one.
pub(super) fn email(body: &Value) -> Result<Option<String>, ApiError> {
    let Some(text) = text(body, "email")? else {
        return Ok(None);
    };
    let is_address = text.split_once('@').is_some_and(|(local, host)| {
        !local.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace)
    });
    if !is_address || text.len() > MAX_EMAIL_BYTES {
        let message = "`email` must be an address like `ada@example.com`.";
        return Err(ApiError::invalid("email", message));
    }
    Ok(Some(text.to_owned()))
}

/// A text, if there is one.
pub(super) fn text<'a>(body: &'a Value, field: &str) -> Result<Option<&'a str>, ApiError> {
    match &body[field] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(ApiError::invalid(
            field,
            format!("`{field}` must be a string."),
        )),
    }
}

/// One of a few words, if it is there.
pub(super) fn word<T: FromStr<Err = WordError>>(
    body: &Value,
    field: &str,
) -> Result<Option<T>, ApiError> {
    text(body, field)?
        .map(|text| {
            text.parse()
                .map_err(|error: WordError| ApiError::invalid(field, format!("{error}.")))
        })
        .transpose()
}

/// One of a few words, which must be there.
pub(super) fn required_word<T: FromStr<Err = WordError>>(
    body: &Value,
    field: &str,
) -> Result<T, ApiError> {
    word(body, field)?.ok_or_else(|| ApiError::invalid(field, format!("`{field}` is missing.")))
}

/// The rights of a new key: those of the service account that `service_account_id` names, or its own.
pub(super) fn key_rights(body: &Value) -> Result<Rights, ApiError> {
    let Some(account) = text(body, "service_account_id")? else {
        return rights(body);
    };
    if !body["role"].is_null() {
        let message = "The key of a service account has the account's role: leave `role` out.";
        return Err(ApiError::invalid("role", message));
    }
    let missing =
        |_| ApiError::not_found(Thing::ServiceAccount, account).param("service_account_id");
    let id = account.parse().map_err(missing)?;
    Ok(Rights::of_account(id, scopes(body)?))
}

/// `role` and `scopes`: those of a member who is limited to nothing, unless it says otherwise.
pub(super) fn rights(body: &Value) -> Result<Rights, ApiError> {
    Ok(Rights {
        role: word(body, "role")?.unwrap_or(Role::Member),
        scopes: scopes(body)?,
        service_account: None,
    })
}

fn scopes(body: &Value) -> Result<Scopes, ApiError> {
    let refused = |message: String| ApiError::invalid("scopes", message);
    let words = match &body["scopes"] {
        Value::Null => return Ok(Scopes::default()),
        Value::Array(words) => words,
        _ => return Err(refused("`scopes` must be a list of strings.".to_owned())),
    };
    let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
    let words = words.ok_or_else(|| refused("`scopes` must be a list of strings.".to_owned()))?;
    Scopes::parse(words).map_err(|error| refused(format!("{error}.")))
}

/// When `expires_in_seconds` from now is; none if the key does not expire.
pub(super) fn expiry(
    body: &Value,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, ApiError> {
    let lifetime = seconds(body, "expires_in_seconds", 1, MAX_LIFETIME_SECS)?;
    Ok(lifetime.map(|lifetime| now + lifetime))
}

/// For how long a replaced key stays good: `grace_seconds`, a day unless it says otherwise.
pub(super) fn grace(body: &Value) -> Result<Duration, ApiError> {
    let default = Duration::seconds(DEFAULT_GRACE_SECS.cast_signed());
    Ok(seconds(body, "grace_seconds", 0, MAX_GRACE_SECS)?.unwrap_or(default))
}

fn seconds(body: &Value, field: &str, min: u64, max: u64) -> Result<Option<Duration>, ApiError> {
    if body[field].is_null() {
        return Ok(None);
    }
    let read = body[field]
        .as_u64()
        .filter(|seconds| (min..=max).contains(seconds));
    let seconds = read.ok_or_else(|| {
        let message = format!("`{field}` must be a whole number from {min} to {max}.");
        ApiError::invalid(field, message)
    })?;
    Ok(Some(Duration::seconds(seconds.cast_signed())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_addresses_are_bounded() {
        assert_eq!(name(&json!({"name": " Legal "})).unwrap(), "Legal");
        for body in [
            json!({}),
            json!({"name": " "}),
            json!({"name": 3}),
            json!({"name": "x".repeat(257)}),
        ] {
            assert!(name(&body).is_err(), "{body}");
        }
        assert!(email(&json!({"email": "ada@example.com"})).is_ok());
        for text in ["ada", "@example.com", "ada@", "a da@example.com"] {
            assert!(email(&json!({ "email": text })).is_err(), "{text}");
        }
    }

    #[test]
    fn a_lifetime_is_a_number_of_seconds_within_bounds() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let read = |value: Value| expiry(&json!({ "expires_in_seconds": value }), now);
        assert_eq!(read(json!(60)).unwrap(), Some(now + Duration::minutes(1)));
        assert_eq!(read(Value::Null).unwrap(), None);
        for wrong in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!("60"),
            json!(u64::MAX),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(grace(&json!({"grace_seconds": 0})).unwrap(), Duration::ZERO);
    }
}

//! What a client says about an endpoint, read and checked.

use domain::WebhookEventType;
use serde_json::Value;
use store::webhooks::Settings;
use utoipa::ToSchema;
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::{Object, Schema};

use super::Sender;
use crate::error::{ApiError, ErrorCode};
use crate::openapi::build::{nullable, word};

const MAX_NAME_CHARS: usize = 128;

/// The body of a new endpoint, as the documentation shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a body is read field by field")]
pub(super) struct NewWebhookEndpoint {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// Where events are sent: `https`, and not inside the installation's own network unless its operator allows it.
    url: String,
    #[schema(schema_with = event_type_list)]
    event_types: Vec<String>,
}

/// The body of a change, as the documentation shows it. What is absent or null stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a body is read field by field")]
pub(super) struct WebhookEndpointChange {
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// Where events are sent: `https`, and not inside the installation's own network unless its operator allows it.
    url: Option<String>,
    #[schema(required = false, schema_with = event_type_list_or_null)]
    event_types: Option<Vec<String>>,
}

/// The body of a test, as the documentation shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a body is read field by field")]
pub(super) struct WebhookEventToTest {
    /// What to send a sample of.
    #[schema(schema_with = event_type_word)]
    event_type: String,
}

fn event_type_word() -> Object {
    word(&WebhookEventType::ALL.map(WebhookEventType::as_str))
}

fn event_type_list() -> ArrayBuilder {
    ArrayBuilder::new()
        .items(event_type_word())
        .min_items(Some(1))
}

fn event_type_list_or_null() -> Schema {
    nullable(event_type_list()).into()
}

/// What a request names; the rest stays as it is.
pub(super) struct Given {
    name: Option<String>,
    url: Option<String>,
    event_types: Option<Vec<WebhookEventType>>,
}

impl Given {
    pub(super) fn read(body: &Value) -> Result<Self, ApiError> {
        Ok(Self {
            name: name(body)?,
            url: text(body, "url")?,
            event_types: event_types(body)?,
        })
    }

    /// The settings of a new endpoint, which need all three.
    pub(super) async fn complete(self, sender: &Sender) -> Result<Settings, ApiError> {
        let missing = |field: &str| ApiError::invalid(field, format!("`{field}` is missing."));
        let settings = Settings {
            name: self.name.ok_or_else(|| missing("name"))?,
            url: self.url.ok_or_else(|| missing("url"))?,
            event_types: self.event_types.ok_or_else(|| missing("event_types"))?,
        };
        allowed(sender, &settings.url).await?;
        Ok(settings)
    }

    /// Checks a URL that is given. No transaction is open meanwhile: a name may take seconds to look up.
    pub(super) async fn check_url(&self, sender: &Sender) -> Result<(), ApiError> {
        match &self.url {
            Some(url) => allowed(sender, url).await,
            None => Ok(()),
        }
    }

    /// The settings of an endpoint that has some.
    pub(super) fn over(self, old: Settings) -> Settings {
        Settings {
            name: self.name.unwrap_or(old.name),
            url: self.url.unwrap_or(old.url),
            event_types: self.event_types.unwrap_or(old.event_types),
        }
    }
}

/// The type that `event_type` names.
pub(super) fn event_type(body: &Value) -> Result<WebhookEventType, ApiError> {
    let word = text(body, "event_type")?;
    let word = word.ok_or_else(|| ApiError::invalid("event_type", "`event_type` is missing."))?;
    word.parse().map_err(|_| unknown("event_type"))
}

async fn allowed(sender: &Sender, url: &str) -> Result<(), ApiError> {
    sender.check(url).await.map_err(|error| {
        ApiError::invalid("url", format!("`url`: {error}.")).code(ErrorCode::InvalidWebhookUrl)
    })
}

fn text(body: &Value, field: &str) -> Result<Option<String>, ApiError> {
    match &body[field] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(ApiError::invalid(
            field,
            format!("`{field}` must be a text."),
        )),
    }
}

fn name(body: &Value) -> Result<Option<String>, ApiError> {
    let name = text(body, "name")?;
    let is_good = |name: &String| !name.trim().is_empty() && name.chars().count() <= MAX_NAME_CHARS;
    if name.as_ref().is_some_and(|name| !is_good(name)) {
        let message = format!("`name` must have 1 to {MAX_NAME_CHARS} characters.");
        return Err(ApiError::invalid("name", message));
    }
    Ok(name)
}

fn event_types(body: &Value) -> Result<Option<Vec<WebhookEventType>>, ApiError> {
    let list = match &body["event_types"] {
        Value::Null => return Ok(None),
        Value::Array(list) if !list.is_empty() => list,
        _ => {
            let message = "`event_types` must be a list of at least one event type.";
            return Err(ApiError::invalid("event_types", message));
        }
    };
    let mut types = Vec::new();
    for value in list {
        let kind: Option<WebhookEventType> = value.as_str().and_then(|word| word.parse().ok());
        let kind = kind.ok_or_else(|| unknown("event_types"))?;
        if !types.contains(&kind) {
            types.push(kind);
        }
    }
    Ok(Some(types))
}

fn unknown(field: &str) -> ApiError {
    let words: Vec<String> = WebhookEventType::ALL
        .map(|kind| format!("`{kind}`"))
        .to_vec();
    let message = format!(
        "`{field}`: this service has the event types {}.",
        words.join(", ")
    );
    ApiError::invalid(field, message)
}

//! The OpenAPI document: every route with what it takes and what it answers, errors included.
//!
//! What a route says of itself stands at its handler. What is the same everywhere (the error body, the key, the
//! errors that any route of its kind can answer) is added here, once, from [`ERRORS`].

pub(crate) mod build;

use utoipa::OpenApi as _;
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};

use crate::error::ErrorCode;
use crate::idempotency::DOCUMENTED_HEADER;
use crate::router::ROUTES;

const KEY: &str = "api_key";

/// What went wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: `error.rs` writes it")]
pub(crate) struct ErrorBody {
    error: ErrorFields,
}

/// All four keys are always there.
#[derive(ToSchema)]
#[schema(as = Error)]
#[expect(dead_code, reason = "only described: `error.rs` writes it")]
pub(crate) struct ErrorFields {
    /// For people. It may change.
    message: String,
    /// The family of errors, in OpenAI's words.
    r#type: String,
    /// The field at fault, by its full path.
    #[schema(required)]
    param: Option<String>,
    #[schema(required, schema_with = ErrorCode::known_or_new)]
    code: Option<ErrorCode>,
}

/// One event of a `text/event-stream`, with its fields' names.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described: an event is written as text")]
pub(crate) struct ServerSentEvent {
    /// What the event says, as JSON; the end of a chat is `[DONE]`.
    data: String,
    /// What `Last-Event-ID` goes on from.
    id: Option<String>,
    event: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Attune",
        description = "Self-hosted fine-tuning behind OpenAI's endpoints. What OpenAI's API has no place for is in the key `attune`."
    ),
    components(schemas(ErrorBody, ErrorFields, ErrorCode)),
    tags(
        (name = "Files", description = "Datasets, and what jobs leave behind."),
        (name = "Batches", description = "Many chat completions at once, answered within a day."),
        (name = "Fine-tuning", description = "Jobs, their events and their checkpoints."),
        (name = "Graders", description = "Rewards for what a model says, tried on one sample."),
        (name = "Models", description = "Base models of the installation and the project's own."),
        (name = "Webhooks", description = "Addresses that are told when a job or a batch ends."),
        (name = "Chat", description = "Answers of base and fine-tuned models."),
        (name = "Documentation", description = "This document and a page that shows it. No key is needed."),
        (name = "Organization", description = "Projects, keys, service accounts and users, for administrators."),
        (name = "Health", description = "For probes and Prometheus. No key is needed.")
    )
)]
struct Base;

/// An answer that is not a success, and which routes can give it.
struct Common {
    status: &'static str,
    description: &'static str,
    applies: fn(&Described<'_>) -> bool,
}

/// What decides which errors a route can answer.
struct Described<'a> {
    method: &'a HttpMethod,
    path: &'a str,
    /// Some routes read no body although their method could carry one.
    reads_body: bool,
    /// Whether it does the same request only once.
    is_once: bool,
    has_query: bool,
}

impl Described<'_> {
    fn is_post(&self) -> bool {
        *self.method == HttpMethod::Post
    }

    fn needs_key(&self) -> bool {
        self.path.starts_with("/v1/")
    }

    /// Whoever may use several projects says which is meant: by a header, so also where nothing else is said.
    fn is_of_a_project(&self) -> bool {
        const OF_ADMINISTRATORS: [&str; 2] = ["/v1/organization/", "/v1/fine_tuning/checkpoints/"];
        self.needs_key()
            && !OF_ADMINISTRATORS
                .iter()
                .any(|area| self.path.starts_with(area))
    }

    /// Posts without a body can come at the wrong time.
    fn takes_input(&self) -> bool {
        self.is_post() || self.reads_body || self.has_query || self.is_of_a_project()
    }

    fn names_something(&self) -> bool {
        self.reads_body || self.is_of_a_project() || self.needs_key() && self.path.contains('{')
    }
}

/// The errors that do not depend on the single route.
const ERRORS: &[Common] = &[
    Common {
        status: "400",
        description: "The request cannot be used; `param` names the field at fault.",
        applies: |route| route.takes_input(),
    },
    Common {
        status: "401",
        description: "There is no key, or it is not valid.",
        applies: |route| route.needs_key(),
    },
    Common {
        status: "403",
        description: "The key is good, but not for this.",
        applies: |route| route.needs_key(),
    },
    Common {
        status: "404",
        description: "There is no such thing in this project, whoever else may have one.",
        applies: |route| route.names_something(),
    },
    Common {
        status: "409",
        description: "The same request is being carried out right now; `x-should-retry` says to send it again.",
        applies: |route| route.is_once,
    },
    Common {
        status: "422",
        description: "The `Idempotency-Key` was used for another request.",
        applies: |route| route.is_once,
    },
    Common {
        status: "413",
        description: "The body is too large.",
        applies: |route| route.reads_body,
    },
    Common {
        status: "415",
        description: "The body is of a type that this route does not read.",
        applies: |route| route.reads_body,
    },
    Common {
        status: "429",
        description: "Too much is asked for. `retry-after` says when there will be room, where that is known; \
                      `x-should-retry: false` says that the same request by itself is no use.",
        applies: |route| route.needs_key(),
    },
    Common {
        status: "500",
        description: "The service is at fault. The message has the request's id for the operator.",
        applies: |route| route.needs_key(),
    },
    Common {
        status: "503",
        description: "Something that the service depends on is away; `retry-after` says when to try again. Without it, \
                      and with `x-should-retry: false`, somebody has to mend the project's own bucket first.",
        applies: |route| route.needs_key(),
    },
    Common {
        status: "507",
        description: "The storage is full.",
        applies: |route| route.is_post(),
    },
];

/// The whole document, as the file in the repository has it.
///
/// # Panics
/// Never: a document made of strings and numbers can be written.
pub fn yaml() -> String {
    let document = document().to_yaml().expect("it can be written");
    format!("# Made by script/openapi from the code. Edit the handlers.\n{document}")
}

/// The whole document.
pub fn document() -> OpenApi {
    let mut document = Base::openapi();
    let components = document.components.get_or_insert_default();
    for route in ROUTES {
        let (schemas, paths, _) = (route.documented)();
        components.schemas.extend(schemas);
        for (path, item) in paths.paths {
            match document.paths.paths.get_mut(&path) {
                Some(known) => known.merge_operations(item),
                None => {
                    document.paths.paths.insert(path, item);
                }
            }
        }
    }
    let key = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme(KEY, key);
    let no_scopes: [&str; 0] = [];
    document.security = Some(vec![SecurityRequirement::new(KEY, no_scopes)]);
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            add_errors(&method, path, operation);
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    as_in_a_query(&mut parameter.schema);
                }
            }
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let PathItem {
        get,
        post,
        put,
        patch,
        delete,
        ..
    } = item;
    [
        (HttpMethod::Get, get),
        (HttpMethod::Post, post),
        (HttpMethod::Put, put),
        (HttpMethod::Patch, patch),
        (HttpMethod::Delete, delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// What a handler says itself is left as it is.
fn add_errors(method: &HttpMethod, path: &str, operation: &mut Operation) {
    let described = Described {
        method,
        path,
        reads_body: operation.request_body.is_some(),
        is_once: operation.parameters.iter().flatten().any(is_key),
        has_query: operation.parameters.iter().flatten().any(|parameter| {
            matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query)
        }),
    };
    for common in ERRORS.iter().filter(|common| (common.applies)(&described)) {
        operation
            .responses
            .responses
            .entry(common.status.to_owned())
            .or_insert_with(|| RefOr::T(error(common.description)));
    }
}

fn is_key(parameter: &RefOr<Parameter>) -> bool {
    matches!(parameter, RefOr::T(parameter) if parameter.name == DOCUMENTED_HEADER)
}

/// A parameter may be left out, but no query can say null. Digits have no end there: a limit is clamped.
fn as_in_a_query(schema: &mut Option<RefOr<Schema>>) {
    match schema {
        Some(RefOr::T(Schema::Object(object))) => {
            if let SchemaType::Array(types) = &object.schema_type
                && let [kind, Type::Null] | [Type::Null, kind] = types.as_slice()
            {
                object.schema_type = SchemaType::Type(kind.clone());
            }
            object.format = None;
        }
        Some(RefOr::T(Schema::OneOf(choices))) if choices.items.len() == 2 => {
            let is_null = |item: &RefOr<Schema>| matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null));
            if choices.items.iter().any(is_null) {
                *schema = choices.items.iter().find(|item| !is_null(item)).cloned();
            }
        }
        _ => {}
    }
}

fn error(description: &str) -> Response {
    let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
    ResponseBuilder::new()
        .description(description)
        .content("application/json", body)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_says_what_it_holds() {
        let mut document = document();
        for (path, item) in &mut document.paths.paths {
            for (_, operation) in operations(item) {
                let Some(RefOr::T(body)) = &operation.request_body else {
                    continue;
                };
                for (kind, content) in &body.content {
                    let says = matches!(content, RefOr::T(content) if matches!(content.schema, Some(RefOr::Ref(_))));
                    assert!(says, "{path} takes {kind} and does not say what it holds");
                }
            }
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_says_what_can_go_wrong() {
        let mut document = document();
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in &mut document.paths.paths {
            for (_, operation) in operations(item) {
                let name = operation.operation_id.clone().expect("a name");
                assert!(
                    names.insert(name.clone()),
                    "two operations are called `{name}`"
                );
                assert!(
                    operation.summary.is_some(),
                    "{name} says nothing about itself"
                );
                if path.starts_with("/v1/") {
                    for status in ["401", "403", "500"] {
                        assert!(
                            operation.responses.responses.contains_key(status),
                            "{name} {status}"
                        );
                    }
                }
            }
        }
        assert_eq!(names.len(), ROUTES.len());
    }
}

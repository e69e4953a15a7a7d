//! What is not there, or is somebody else's: the answer is the same for both.

use super::{ApiError, ErrorCode, Kind};

/// Something a client can ask for by its id or name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// An uploaded or produced file.
    File,
    /// A fine-tuning job.
    Job,
    /// A base or fine-tuned model.
    Model,
    /// A file that comes in parts.
    Upload,
    /// A batch of requests.
    Batch,
    /// A project of the organization.
    Project,
    /// An API key, of a project or of the organization.
    ApiKey,
    /// A service account of a project.
    ServiceAccount,
    /// A user of the organization or of a project.
    User,
    /// A permission to use a model.
    Permission,
    /// An address that is told of events.
    WebhookEndpoint,
    /// The limits of a project.
    RateLimit,
}

impl Thing {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Job => "fine-tuning job",
            Self::Model => "model",
            Self::Upload => "upload",
            Self::Batch => "batch",
            Self::Project => "project",
            Self::ApiKey => "API key",
            Self::ServiceAccount => "service account",
            Self::User => "user",
            Self::Permission => "permission",
            Self::WebhookEndpoint => "webhook endpoint",
            Self::RateLimit => "rate limit",
        }
    }

    fn code(self) -> ErrorCode {
        match self {
            Self::File => ErrorCode::FileNotFound,
            Self::Job => ErrorCode::JobNotFound,
            Self::Model => ErrorCode::ModelNotFound,
            Self::Upload => ErrorCode::UploadNotFound,
            Self::Batch => ErrorCode::BatchNotFound,
            Self::Project => ErrorCode::ProjectNotFound,
            Self::ApiKey => ErrorCode::ApiKeyNotFound,
            Self::ServiceAccount => ErrorCode::ServiceAccountNotFound,
            Self::User => ErrorCode::UserNotFound,
            Self::Permission => ErrorCode::PermissionNotFound,
            Self::WebhookEndpoint => ErrorCode::WebhookEndpointNotFound,
            Self::RateLimit => ErrorCode::RateLimitNotFound,
        }
    }

    /// Where one would be.
    fn place(self) -> &'static str {
        match self {
            Self::File | Self::Job | Self::Model | Self::Upload | Self::Batch => "in this project",
            _ => "here",
        }
    }
}

impl ApiError {
    /// A thing that does not exist or that belongs to somebody else: the answer is the same for both.
    pub fn not_found(thing: Thing, id: &str) -> Self {
        let id = shorten(id);
        let message = format!("There is no {} `{id}` {}.", thing.word(), thing.place());
        let param = if thing == Thing::Model { "model" } else { "id" };
        Self::new(Kind::NotFound, message)
            .param(param)
            .code(thing.code())
    }

    /// No such route.
    pub fn no_route(method: &str, path: &str) -> Self {
        let message = format!("There is no route `{} {}`.", shorten(method), shorten(path));
        Self::new(Kind::NotFound, message).code(ErrorCode::UnknownUrl)
    }

    /// The route exists, but not with this method.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let (method, path) = (shorten(method), shorten(path));
        let message = format!("`{path}` does not take the method {method}.");
        Self::new(Kind::MethodNotAllowed, message).code(ErrorCode::MethodNotAllowed)
    }
}

/// What a client sent, as an error repeats it: no longer than an id needs.
fn shorten(text: &str) -> String {
    if text.chars().count() <= 160 {
        text.to_owned()
    } else {
        text.chars().take(159).collect::<String>() + "…"
    }
}

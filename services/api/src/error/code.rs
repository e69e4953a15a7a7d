//! The words by which programs tell one error from another. An error can carry no other: [`ErrorCode`] is what
//! [`ApiError::code`](super::ApiError::code) takes, and the OpenAPI document lists all of them.

use std::fmt::Write as _;

use domain::config::IncompatibleModel;
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Object, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Each variant's comment is the sentence that the document has for it.
macro_rules! codes {
    ($($(#[doc = $line:literal])+ $name:ident = $word:expr;)+) => {
        /// Why a request was refused, or could not be served. A word stays the same for ever; new ones may come.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[doc = $line])+ $name,)+
        }

        impl ErrorCode {
            /// Every code that there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As it is written in `code`.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }

            /// What it says, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($line),+).trim(),)+
                }
            }
        }
    };
}

codes! {
    /// The field that `param` names cannot be used; the message says why and what would be right.
    InvalidValue = "invalid_value";
    /// The field that `param` names is of another type.
    InvalidType = "invalid_type";
    /// The field that `param` names asks for what this service does not do.
    UnsupportedValue = "unsupported_value";
    /// The limit that `param` names is above what the installation's operator set for the project.
    AboveOperatorLimit = "above_operator_limit";
    /// The field that `param` names is missing.
    MissingRequiredParameter = "missing_required_parameter";
    /// The body is not one good JSON object.
    InvalidJson = "invalid_json";

    /// There is no key, or it is unknown, revoked or misspelled.
    InvalidApiKey = "invalid_api_key";
    /// The key was rotated before: rotate the one that replaced it, which the message names.
    KeyReplaced = "key_replaced";
    /// The key is revoked, so it cannot be rotated.
    KeyRevoked = "key_revoked";
    /// The key has expired, so it cannot be rotated.
    KeyExpired = "key_expired";
    /// The bearer token of the identity provider is not valid.
    InvalidToken = "invalid_token";
    /// An admin key belongs to no project, so it cannot be used here.
    AdminKeyNotAllowed = "admin_key_not_allowed";
    /// Only an admin key, or an owner of the organization, may do this.
    AdminKeyRequired = "admin_key_required";
    /// The key's scopes do not reach this.
    MissingScope = "missing_scope";
    /// The user's role in the project does not allow this.
    InsufficientRole = "insufficient_role";
    /// The user is signed in, but no project is open to them.
    NoProject = "no_project";

    /// There is no such route.
    UnknownUrl = "unknown_url";
    /// The route does not take this method.
    MethodNotAllowed = "method_not_allowed";
    /// The body is longer than this route allows.
    RequestTooLarge = "request_too_large";
    /// The body is of a type that the route does not read.
    UnsupportedMediaType = "unsupported_media_type";
    /// The asked-for range lies beyond the file's end.
    RangeNotSatisfiable = "range_not_satisfiable";
    /// The same request is being carried out right now: send it again to get its answer.
    RequestInFlight = "request_in_flight";
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused = "idempotency_key_reused";
    /// The same request made this before, with a secret that is shown once; the message names it and says what to do.
    AlreadyMade = "already_made";

    /// There is no such file.
    FileNotFound = "file_not_found";
    /// There is no such job.
    JobNotFound = "job_not_found";
    /// There is no such model, or it is not open to this project.
    ModelNotFound = "model_not_found";
    /// There is no such upload.
    UploadNotFound = "upload_not_found";
    /// There is no such batch.
    BatchNotFound = "batch_not_found";
    /// There is no such project.
    ProjectNotFound = "project_not_found";
    /// There is no such key.
    ApiKeyNotFound = "api_key_not_found";
    /// There is no such service account.
    ServiceAccountNotFound = "service_account_not_found";
    /// There is no such user.
    UserNotFound = "user_not_found";
    /// There is no such permission.
    PermissionNotFound = "permission_not_found";
    /// There is no such webhook endpoint.
    WebhookEndpointNotFound = "webhook_endpoint_not_found";
    /// There is no such rate limit.
    RateLimitNotFound = "rate_limit_not_found";

    /// The file is empty.
    EmptyFile = "empty_file";
    /// The file does not hold what its purpose asks for.
    InvalidFileFormat = "invalid_file_format";
    /// A job or a batch that has not ended needs the file.
    FileInUse = "file_in_use";
    /// The body ended early, and nothing of it was kept.
    UploadIncomplete = "upload_incomplete";
    /// The upload was not completed in time.
    UploadExpired = "upload_expired";
    /// The upload is completed or cancelled already.
    UploadIsFinal = "upload_is_final";
    /// The parts together do not have the announced size.
    UploadSizeMismatch = "upload_size_mismatch";
    /// The upload has no part of this id.
    PartNotFound = "part_not_found";
    /// The upload has as many parts as it may, or as many bytes of parts.
    TooManyParts = "too_many_parts";
    /// The content is not what the checksum says.
    ChecksumMismatch = "checksum_mismatch";

    /// The job has ended.
    JobIsFinal = "job_is_final";
    /// The job could not go on from this model with these settings.
    IncompatibleModel = IncompatibleModel::CODE;
    /// The project has no account of Weights & Biases to report to.
    WandbNotConfigured = "wandb_not_configured";
    /// The grader needs what this service does not do.
    UnsupportedGrader = "unsupported_grader";
    /// The model's tokenizer cannot be used for this.
    TokenizerNotAvailable = "tokenizer_not_available";
    /// Only a fine-tuned model can be downloaded.
    NotFineTuned = "not_fine_tuned";
    /// The model was not trained as an adapter.
    NoAdapter = "no_adapter";
    /// Prompt and answer together are longer than the model's context.
    ContextLengthExceeded = "context_length_exceeded";

    /// The batch has ended.
    BatchIsFinal = "batch_is_final";
    /// The project has as many unfinished batches as it may.
    TooManyBatches = "too_many_batches";
    /// The project has as many webhook endpoints as it may.
    TooManyWebhookEndpoints = "too_many_webhook_endpoints";
    /// Nothing may be sent to this address.
    InvalidWebhookUrl = "invalid_webhook_url";
    /// The receiver did not take the message.
    WebhookNotDelivered = "webhook_not_delivered";
    /// The installation has no key to seal secrets with, so it has no webhooks.
    WebhooksNotConfigured = "webhooks_not_configured";
    /// Nothing begins in an archived project.
    ProjectArchived = "project_archived";

    /// The project has had its requests or tokens of this minute.
    RateLimitExceeded = "rate_limit_exceeded";
    /// The project has what it may have.
    InsufficientQuota = "insufficient_quota";

    /// The project's own bucket could not be reached.
    BucketUnavailable = "bucket_unavailable";
    /// The project's own bucket has no space left.
    BucketFull = "bucket_full";
    /// The project's own bucket refuses us.
    BucketRefused = "bucket_refused";
    /// The installation's storage has no space left.
    StorageFull = "storage_full";
    /// Something that the service depends on is away.
    Unavailable = "unavailable";
    /// In a stream that has begun: the service cannot go on with the answer for now.
    ServiceUnavailable = "service_unavailable";
    /// In a stream that has begun: the service is at fault.
    InternalError = "internal_error";
    /// Too many chats wait for an answer already.
    ServerIsOverloaded = "server_is_overloaded";
}

impl ErrorCode {
    /// The code that is written so.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.word() == word)
    }

    /// A code of today, another one of tomorrow, or none: no client that checks answers strictly may fail of a new one.
    pub(crate) fn known_or_new() -> Schema {
        AnyOfBuilder::new()
            .item(Ref::from_schema_name(Self::name()))
            .item(
                ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::String, Type::Null])),
            )
            .description(Some("For programs. It stays the same."))
            .into()
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let mut description = "Why a request was refused, or could not be served:\n".to_owned();
        for code in Self::ALL {
            write!(description, "\n- `{}`: {}", code.word(), code.meaning())
                .expect("a String takes everything");
        }
        let words = Self::ALL.iter().map(|code| code.word());
        let schema: Object = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(words))
            .description(Some(description))
            .build();
        schema.into()
    }
}

impl ToSchema for ErrorCode {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use artifacts::OwnBucketFault;

    use super::*;

    #[test]
    fn no_two_codes_are_written_alike_and_each_says_what_it_means() {
        let words: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert!(code.meaning().ends_with('.'), "{code:?}");
        }
    }

    #[test]
    fn what_a_projects_own_bucket_may_be_at_fault_of_has_a_code() {
        for word in OwnBucketFault::CODES {
            assert!(ErrorCode::named(word).is_some(), "{word}");
        }
    }
}

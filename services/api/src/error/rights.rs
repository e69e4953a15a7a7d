//! Who is not let in, or not this far. 401 is for bad credentials, 403 for good ones that do not reach.

use domain::{Scope, Scopes};

use super::{ApiError, ErrorCode, Kind};

impl ApiError {
    /// The request carries no key.
    pub fn missing_key() -> Self {
        let message =
            "You did not provide an API key. Send it as `Authorization: Bearer YOUR_KEY`.";
        Self::new(Kind::Unauthenticated, message).code(ErrorCode::InvalidApiKey)
    }

    /// The key is unknown, revoked or misspelled.
    pub fn wrong_key() -> Self {
        let message =
            "The API key is not valid. Check that it is complete and has not been revoked.";
        Self::new(Kind::Unauthenticated, message).code(ErrorCode::InvalidApiKey)
    }

    /// The key is good, but not for this.
    pub fn admin_key() -> Self {
        let message = "This is an admin key. It belongs to no project, so it cannot use files, jobs, \
                       models or chat: use a project's API key.";
        Self::new(Kind::Forbidden, message).code(ErrorCode::AdminKeyNotAllowed)
    }

    /// The key is good, but an organization is administered by others.
    pub fn admin_key_needed() -> Self {
        let message = "This needs an admin key of the organization, or a user who is its owner.";
        Self::new(Kind::Forbidden, message).code(ErrorCode::AdminKeyRequired)
    }

    /// The key is limited to other areas.
    pub fn missing_scope(scopes: &Scopes, areas: &[Scope]) -> Self {
        let list = |words: Vec<String>| words.join("`, `");
        let message = format!(
            "This key is limited to the scopes `{}`. This request needs one of `{}`.",
            list(scopes.words()),
            list(areas.iter().map(ToString::to_string).collect())
        );
        Self::new(Kind::Forbidden, message).code(ErrorCode::MissingScope)
    }

    /// The key is limited to reading.
    pub fn read_only_key() -> Self {
        let message = "This key has the scope `read_only`, so it can change and compute nothing.";
        Self::new(Kind::Forbidden, message).code(ErrorCode::MissingScope)
    }

    /// The role does not allow it.
    pub fn viewer() -> Self {
        let message = "You are a viewer of this project, so you can change and compute nothing: \
                       an administrator can make you a member.";
        Self::new(Kind::Forbidden, message).code(ErrorCode::InsufficientRole)
    }

    /// A member is not enough.
    pub fn no_owner() -> Self {
        let message = "You are a member of this project, and this takes an owner of it: an administrator can make \
                       you one, or make a key with the role `owner`.";
        Self::new(Kind::Forbidden, message).code(ErrorCode::InsufficientRole)
    }

    /// The bearer token is not good; `why` continues "it is not valid:".
    pub fn wrong_token(why: &str) -> Self {
        let message = format!("The bearer token is not valid: {why}.");
        Self::new(Kind::Unauthenticated, message).code(ErrorCode::InvalidToken)
    }

    /// The user may use no project at all.
    pub fn no_project() -> Self {
        let message = "You are signed in, but no project is open to you: an administrator can add \
                       you to one.";
        Self::new(Kind::Forbidden, message).code(ErrorCode::NoProject)
    }

    /// The user did not say which project is meant.
    pub fn several_projects() -> Self {
        let message = "Several projects are open to you: name one in the header `OpenAI-Project`.";
        Self::invalid("OpenAI-Project", message)
    }
}

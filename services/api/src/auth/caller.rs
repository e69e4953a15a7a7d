//! Who calls, as a log of what was done names them.

use domain::{ApiKeyId, ServiceAccountId, UserId};

/// A key or a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Whoever holds an API key.
    Key {
        /// The key.
        id: ApiKeyId,
        /// What people call it.
        name: String,
        /// The program that it belongs to.
        service_account: Option<ServiceAccountId>,
    },
    /// A person, with a token of the identity provider.
    User {
        /// The user.
        id: UserId,
        /// Their email.
        email: String,
    },
}

impl Caller {
    /// The id of the key or the user, as the API writes it.
    pub fn id(&self) -> String {
        match self {
            Self::Key { id, .. } => id.to_string(),
            Self::User { id, .. } => id.to_string(),
        }
    }

    /// The key's name or the user's email.
    pub fn name(&self) -> &str {
        match self {
            Self::Key { name, .. } => name,
            Self::User { email, .. } => email,
        }
    }

    /// What kind of caller it is: `api_key`, `service_account` or `user`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key {
                service_account: Some(_),
                ..
            } => "service_account",
            Self::Key { .. } => "api_key",
            Self::User { .. } => "user",
        }
    }
}

//! Why a job's attempt ended early. The kind decides what happens next.

use std::fmt;

/// One of the three ways in which an attempt fails. A lost lease is none of them: its holder just stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The tenant's data or settings. Not tried again; the tenant sees the whole message.
    Rejected {
        /// Stable and machine-readable, for instance `invalid_training_file`.
        code: &'static str,
        /// What is wrong, where, and the way out.
        message: String,
        /// The request field that named the culprit, for instance `training_file`.
        param: Option<&'static str>,
    },
    /// Something around us (storage, database, disk). Tried again with a pause.
    Transient {
        /// What failed, for the operator and, in short, for the tenant.
        message: String,
    },
    /// Our own fault. The job fails and somebody should look.
    Bug {
        /// What happened; logged, never shown to the tenant.
        message: String,
    },
}

impl Failure {
    /// The tenant's data or settings are at fault.
    pub fn rejected(
        code: &'static str,
        param: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self::Rejected {
            code,
            message: message.into(),
            param,
        }
    }

    /// Something around us failed.
    pub fn transient(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Transient {
            message: error_chain(error),
        }
    }

    /// We did something wrong.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::Bug {
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected { message, .. } => f.write_str(message),
            Self::Transient { message } => write!(f, "temporary failure: {message}"),
            Self::Bug { message } => write!(f, "internal error: {message}"),
        }
    }
}

impl std::error::Error for Failure {}

/// The text as a sentence begins.
pub fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), chars.as_str())
}

/// An error and its causes, joined by colons: what a log line or a job's message shows.
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

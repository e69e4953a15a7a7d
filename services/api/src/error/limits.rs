//! What a project may not have, or not yet.

use std::time::Duration;

use store::quotas::QuotaExceeded;

use super::{ApiError, ErrorCode, Kind, Retry};

impl ApiError {
    /// The project has had its `what` of this minute, `limit` of them.
    pub fn rate_limited(what: &str, limit: u64, wait: Duration) -> Self {
        let message = format!(
            "Rate limit reached: this project may have {limit} {what} a minute. Try again in {:.3} s.",
            wait.as_secs_f64()
        );
        Self {
            retry: Some(Retry::After(wait)),
            ..Self::new(Kind::RateLimited, message).code(ErrorCode::RateLimitExceeded)
        }
    }

    /// The request alone is expected to take more tokens than a minute has.
    pub fn never_fits(expected: u64, limit: u64) -> Self {
        let message = format!(
            "This request is expected to take {expected} tokens, and this project may take {limit} a minute. Shorten the \
             messages or lower `max_completion_tokens`."
        );
        Self {
            retry: Some(Retry::Never),
            ..Self::new(Kind::RateLimited, message).code(ErrorCode::RateLimitExceeded)
        }
    }

    /// The project would use more than it may.
    pub fn quota_exceeded(exceeded: &QuotaExceeded) -> Self {
        Self {
            retry: Some(Retry::Never),
            ..Self::new(Kind::QuotaExceeded, exceeded.to_string()).code(ErrorCode::InsufficientQuota)
        }
    }

    /// The project was archived while the request was under way. The next one is not let in.
    pub fn project_archived() -> Self {
        let message = "The project is archived: nothing begins in it any more.";
        Self::invalid_request(message).code(ErrorCode::ProjectArchived)
    }

    /// After how long the same request may be let through, if all that is wrong is that it comes too soon.
    pub(crate) fn comes_too_soon(&self) -> Option<Duration> {
        match self.retry {
            Some(Retry::After(wait)) => Some(wait),
            _ => None,
        }
    }
}

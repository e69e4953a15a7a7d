//! What a project may not have, or not yet.

use std::time::Duration;

use store::StoreError;
use store::quotas::QuotaExceeded;
use time::{OffsetDateTime, UtcOffset};

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
            ..Self::new(Kind::QuotaExceeded, exceeded.to_string())
                .code(ErrorCode::InsufficientQuota)
        }
    }

    /// A job was refused, or could not be counted, at the time `now`: what a project has by the day, it has again tomorrow.
    pub fn of_admission(error: StoreError, now: OffsetDateTime) -> Self {
        let StoreError::Quota(exceeded @ QuotaExceeded::TrainedTokens { .. }) = error else {
            return error.into();
        };
        Self {
            retry: Some(Retry::Later(until_midnight(now))),
            ..Self::quota_exceeded(&exceeded)
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

/// In UTC, as days of limits are. In whole seconds, rounded up.
fn until_midnight(now: OffsetDateTime) -> Duration {
    let (hours, minutes, seconds) = now.to_offset(UtcOffset::UTC).time().as_hms();
    let passed = u64::from(hours) * 3600 + u64::from(minutes) * 60 + u64::from(seconds);
    Duration::from_secs(24 * 3600 - passed)
}

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse as _;
    use time::macros::datetime;

    use super::*;
    use crate::error::answer::SHOULD_RETRY;

    #[test]
    fn tokens_by_the_day_are_there_again_after_midnight_and_nobody_waits_for_it() {
        for (now, secs) in [
            (datetime!(2026-11-24 12:00 UTC), "43200"),
            (datetime!(2026-11-24 23:59:59.5 UTC), "1"),
            (datetime!(2026-11-24 00:00 UTC), "86400"),
            (datetime!(2026-11-24 23:00 -2), "82800"),
        ] {
            let exceeded = QuotaExceeded::TrainedTokens {
                max: 1,
                used: 1,
                wanted: 1,
            };
            let response = ApiError::of_admission(exceeded.into(), now).into_response();
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()[RETRY_AFTER], secs);
            assert_eq!(response.headers()[SHOULD_RETRY], "false");
        }
        let exceeded = QuotaExceeded::QueuedJobs { max: 1, waiting: 1 };
        let response = ApiError::of_admission(exceeded.into(), datetime!(2026-11-24 12:00 UTC))
            .into_response();
        assert!(
            !response.headers().contains_key(RETRY_AFTER),
            "nobody knows when"
        );
    }
}

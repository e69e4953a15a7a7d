//! What a webhook tells, and how long it is told again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Something that happened to an object, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is its word")]
pub enum WebhookEventType {
    JobSucceeded,
    JobFailed,
    JobCancelled,
    BatchCompleted,
    BatchFailed,
    BatchExpired,
    BatchCancelled,
}

impl WebhookEventType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::JobSucceeded,
        Self::JobFailed,
        Self::JobCancelled,
        Self::BatchCompleted,
        Self::BatchFailed,
        Self::BatchExpired,
        Self::BatchCancelled,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobSucceeded => "fine_tuning.job.succeeded",
            Self::JobFailed => "fine_tuning.job.failed",
            Self::JobCancelled => "fine_tuning.job.cancelled",
            Self::BatchCompleted => "batch.completed",
            Self::BatchFailed => "batch.failed",
            Self::BatchExpired => "batch.expired",
            Self::BatchCancelled => "batch.cancelled",
        }
    }

    /// What the ids of the objects that it happens to begin with.
    pub fn object_prefix(self) -> &'static str {
        match self {
            Self::JobSucceeded | Self::JobFailed | Self::JobCancelled => crate::JobId::PREFIX,
            _ => crate::BatchId::PREFIX,
        }
    }
}

impl fmt::Display for WebhookEventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WebhookEventType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| text.to_owned())
    }
}

/// Pauses between attempts at one delivery: at once a few times, for a receiver that restarts, then over three days, for
/// one whose weekend it is.
const PAUSES_SECS: [u64; 12] = [
    5, 30, 120, 600, 1_800, 3_600, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400,
];

/// How long to wait after attempt number `attempt`, from 1, failed; none if it was the last.
pub fn pause_after(attempt: i32) -> Option<Duration> {
    let index = usize::try_from(attempt.max(1) - 1).ok()?;
    PAUSES_SECS.get(index).copied().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_survives_its_word() {
        for kind in WebhookEventType::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("job.succeeded".parse::<WebhookEventType>().is_err());
    }

    #[test]
    fn a_delivery_is_given_up_after_three_days() {
        let pauses: Vec<Duration> = (1..).map_while(pause_after).collect();
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]));
        let total: Duration = pauses.iter().sum();
        assert!((72..84).contains(&(total.as_secs() / 3_600)), "{total:?}");
    }
}

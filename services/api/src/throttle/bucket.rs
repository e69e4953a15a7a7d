//! A token bucket: it holds a minute's worth, and fills evenly.

use std::time::Duration;

use time::OffsetDateTime;

const MINUTE_SECS: f64 = 60.0;

/// So many a minute.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: u64,
    /// Below zero when more was used than was taken.
    level: f64,
    at: OffsetDateTime,
}

/// Where a bucket stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Standing {
    /// What it holds when it is full.
    pub(super) limit: u64,
    /// What it holds.
    pub(super) remaining: u64,
    /// Until it is full.
    pub(super) reset: Duration,
}

impl Bucket {
    /// A full one.
    pub(super) fn full(limit: u64, now: OffsetDateTime) -> Self {
        Self {
            limit,
            level: float(limit),
            at: now,
        }
    }

    /// Another limit from now on. What is in it stays, as far as it fits.
    pub(super) fn set_limit(&mut self, limit: u64, now: OffsetDateTime) {
        self.fill(now);
        self.limit = limit;
        self.level = self.level.min(float(limit));
    }

    /// Takes `n`, or says how long it takes until they are there.
    pub(super) fn take(&mut self, n: u64, now: OffsetDateTime) -> Result<(), Duration> {
        self.fill(now);
        let missing = float(n) - self.level;
        // What filling leaves over by rounding must not make anybody wait.
        if missing <= 1e-6 {
            self.level -= float(n);
            return Ok(());
        }
        Err(self.time_for(missing))
    }

    /// Of `taken`, `used` were needed, fewer or more.
    pub(super) fn correct(&mut self, taken: u64, used: u64, now: OffsetDateTime) {
        self.fill(now);
        self.level = (self.level + float(taken) - float(used)).min(float(self.limit));
    }

    /// Where it stands.
    pub(super) fn standing(&mut self, now: OffsetDateTime) -> Standing {
        self.fill(now);
        Standing {
            limit: self.limit,
            remaining: whole(self.level),
            reset: self.time_for(float(self.limit) - self.level),
        }
    }

    /// A clock that was set back fills nothing.
    fn fill(&mut self, now: OffsetDateTime) {
        let passed = (now - self.at).as_seconds_f64().max(0.0);
        self.level = (self.level + passed * self.per_sec()).min(float(self.limit));
        self.at = self.at.max(now);
    }

    fn time_for(&self, n: f64) -> Duration {
        Duration::try_from_secs_f64(n / self.per_sec()).unwrap_or(Duration::MAX)
    }

    fn per_sec(&self) -> f64 {
        float(self.limit) / MINUTE_SECS
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact below 2^53, and nobody counts beyond"
)]
fn float(n: u64) -> f64 {
    n as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, and below zero nothing is left"
)]
fn whole(n: f64) -> u64 {
    (n + 1e-6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(ms)
    }

    #[test]
    fn a_minute_s_worth_goes_at_once_and_comes_back_evenly() {
        let mut bucket = Bucket::full(60, at(0));
        for _ in 0..60 {
            bucket.take(1, at(0)).unwrap();
        }
        assert_eq!(bucket.take(1, at(0)), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(1, at(400)), Err(Duration::from_millis(600)));
        bucket.take(1, at(1000)).unwrap();
        assert!(bucket.take(1, at(1000)).is_err());
        let standing = bucket.standing(at(31_000));
        assert_eq!(
            (standing.remaining, standing.reset),
            (30, Duration::from_secs(30))
        );
        // It does not grow beyond a minute's worth.
        assert_eq!(bucket.standing(at(3_600_000)).remaining, 60);
    }

    #[test]
    fn in_any_time_no_more_go_through_than_the_bucket_and_what_came_in() {
        let mut bucket = Bucket::full(90, at(0));
        let through = (0..100_000)
            .filter(|ms| bucket.take(1, at(*ms)).is_ok())
            .count();
        // 90 at once, and 1.5 a second over 100 seconds.
        assert_eq!(through, 90 + 149);
    }

    #[test]
    fn what_was_used_beyond_expectation_is_owed() {
        let mut bucket = Bucket::full(60, at(0));
        bucket.take(10, at(0)).unwrap();
        bucket.correct(10, 90, at(0));
        assert_eq!(bucket.standing(at(0)).remaining, 0);
        assert_eq!(bucket.take(1, at(0)), Err(Duration::from_secs(31)));
        bucket.correct(0, 0, at(31_000));
        bucket.take(1, at(31_000)).unwrap();
        // Nothing comes back beyond what fits.
        bucket.correct(500, 0, at(31_000));
        assert_eq!(bucket.standing(at(31_000)).remaining, 60);
    }

    #[test]
    fn a_lower_limit_holds_at_once_and_a_clock_set_back_fills_nothing() {
        let mut bucket = Bucket::full(60, at(60_000));
        bucket.set_limit(6, at(60_000));
        assert_eq!(bucket.standing(at(60_000)).remaining, 6);
        bucket.take(6, at(60_000)).unwrap();
        assert!(bucket.take(1, at(0)).is_err());
        assert_eq!(bucket.take(1, at(60_000)), Err(Duration::from_secs(10)));
    }
}

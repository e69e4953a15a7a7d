//! Time as a value that is passed in, so that a test can move it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;

/// Where the time comes from. Cloning shares the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<dyn TellTime>);

/// A source of time.
pub trait TellTime: Send + Sync + std::fmt::Debug {
    /// The time now, in UTC.
    fn now(&self) -> OffsetDateTime;
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self(Arc::new(SystemClock))
    }

    /// The time now, to the microsecond: what Postgres keeps, so that a stored time equals the one that was given.
    pub fn now(&self) -> OffsetDateTime {
        let now = self.0.now();
        now.replace_nanosecond(now.nanosecond() / 1000 * 1000)
            .expect("fewer nanoseconds than a second has")
    }
}

impl From<Arc<ManualClock>> for Clock {
    fn from(clock: Arc<ManualClock>) -> Self {
        Self(clock)
    }
}

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock;

impl TellTime for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(Mutex<OffsetDateTime>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: OffsetDateTime) -> Arc<Self> {
        Arc::new(Self(Mutex::new(start)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.lock() += by;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OffsetDateTime> {
        self.0.lock().expect("no holder of the clock panics")
    }
}

impl TellTime for ManualClock {
    fn now(&self) -> OffsetDateTime {
        *self.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let manual = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        let clock = Clock::from(manual.clone());
        assert_eq!(clock.now().unix_timestamp(), 0);
        manual.advance(Duration::from_mins(1));
        assert_eq!(clock.now().unix_timestamp(), 60);
    }
}

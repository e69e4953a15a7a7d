//! Requests and tokens per minute, as token buckets in this process's memory.
//!
//! In memory, because a bucket in Postgres would be one row that every request of a project waits for, and two round
//! trips on each. What that costs is stated: a service of R replicas (`ATTUNE_API_REPLICAS`) gives each a bucket of one
//! R-th of the project's limit, so that however requests are spread, no more than limit · (1 + t / 60 s) are let through
//! in any t seconds; the other way round, a project whose requests all meet one replica is refused there from a R-th of
//! its limit on. A replica that starts anew begins with a full bucket: one R-th of a minute's limit more, once.
//!
//! Limits are read again after [`LIMITS_LAST`]; a changed one holds from then on. A project without limits costs one
//! look into a map.

mod bucket;
mod hold;
mod meter;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use domain::{Clock, ProjectId};
use store::{Store, StoreError, quotas};
use time::OffsetDateTime;

use self::bucket::{Bucket, Standing};
use crate::error::ApiError;

pub use self::hold::TokenHold;
pub use self::meter::estimate;
pub(crate) use self::meter::{metered, prompt};

/// How long limits are taken to be what they were.
const LIMITS_LAST: Duration = Duration::from_secs(5);
/// Projects that are remembered before those that have been quiet for a minute are forgotten: their buckets are full.
const MAX_PROJECTS: usize = 10_000;

tokio::task_local! {
    /// Where the request's project stands, for the headers of the answer.
    static STANDINGS: Mutex<Standings>;
}

#[derive(Debug, Clone, Copy, Default)]
struct Standings {
    requests: Option<Standing>,
    tokens: Option<Standing>,
}

/// The buckets of every project. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Throttle {
    replicas: u32,
    clock: Clock,
    projects: Arc<Mutex<HashMap<ProjectId, Limited>>>,
}

#[derive(Debug)]
struct Limited {
    read_at: OffsetDateTime,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Throttle {
    /// Full buckets, in one of `replicas` processes.
    pub fn new(clock: Clock, replicas: u32) -> Self {
        Self {
            replicas: replicas.max(1),
            clock,
            projects: Arc::default(),
        }
    }

    /// Lets a request of the project through, or says when to come back.
    ///
    /// # Errors
    /// A 429 if the project has had its requests.
    pub async fn admit(&self, store: &Store, project_id: ProjectId) -> Result<(), ApiError> {
        self.refresh(store, project_id).await?;
        self.take_request(project_id)
    }

    /// Takes a request and the tokens that it is expected to need, or neither: for what waits until both are there. None
    /// if tokens are not limited. [`Self::refresh`] comes first.
    ///
    /// # Errors
    /// As [`Self::admit`] and [`Self::hold_tokens`].
    pub fn take(
        &self,
        project_id: ProjectId,
        expected: u64,
    ) -> Result<Option<TokenHold>, ApiError> {
        let hold = self.hold_tokens(project_id, expected)?;
        let taken = self.take_request(project_id);
        match (taken, hold) {
            (Ok(()), hold) => Ok(hold),
            (Err(refused), hold) => {
                if let Some(hold) = hold {
                    hold.refund();
                }
                Err(refused)
            }
        }
    }

    /// Reads the project's limits again, if it is time.
    ///
    /// # Errors
    /// The database failed.
    pub async fn refresh(&self, store: &Store, project_id: ProjectId) -> Result<(), StoreError> {
        let now = self.clock.now();
        if !self.knows(project_id, now) {
            let mut tx = store.tenant_tx(project_id).await?;
            let quotas = quotas::own(&mut tx).await?;
            tx.commit().await?;
            self.learn(project_id, &quotas, now);
        }
        Ok(())
    }

    fn take_request(&self, project_id: ProjectId) -> Result<(), ApiError> {
        let now = self.clock.now();
        let mut projects = self.lock();
        let Some(limited) = projects.get_mut(&project_id) else {
            return Ok(());
        };
        let taken = limited.requests.as_mut().map_or(Ok(()), |bucket| {
            bucket.take(1, now).map_err(|wait| {
                ApiError::rate_limited("requests", bucket.standing(now).limit, wait)
            })
        });
        limited.note(now);
        taken
    }

    /// Takes what a request is expected to need of the project's tokens. None if they are not limited.
    ///
    /// # Errors
    /// A 429 if they are not there.
    pub fn hold_tokens(
        &self,
        project_id: ProjectId,
        expected: u64,
    ) -> Result<Option<TokenHold>, ApiError> {
        let now = self.clock.now();
        let mut projects = self.lock();
        let Some(limited) = projects.get_mut(&project_id) else {
            return Ok(None);
        };
        let Some(bucket) = &mut limited.tokens else {
            return Ok(None);
        };
        let limit = bucket.standing(now).limit;
        if expected > limit {
            return Err(ApiError::never_fits(expected, limit));
        }
        let taken = bucket.take(expected, now);
        limited.note(now);
        taken.map_err(|wait| ApiError::rate_limited("tokens", limit, wait))?;
        Ok(Some(TokenHold::new(self.clone(), project_id, expected)))
    }

    /// Corrects what was taken, by tokens that go back or come on top.
    fn correct(&self, project_id: ProjectId, expected: u64, used: u64) {
        let now = self.clock.now();
        if let Some(limited) = self.lock().get_mut(&project_id)
            && let Some(bucket) = &mut limited.tokens
        {
            bucket.correct(expected, used, now);
            limited.note(now);
        }
    }

    fn knows(&self, project_id: ProjectId, now: OffsetDateTime) -> bool {
        let known = self.lock().get(&project_id).map(|limited| limited.read_at);
        known.is_some_and(|read_at| now - read_at < LIMITS_LAST)
    }

    fn learn(&self, project_id: ProjectId, quotas: &quotas::Quotas, now: OffsetDateTime) {
        let mut projects = self.lock();
        if projects.len() >= MAX_PROJECTS {
            projects.retain(|_, limited| now - limited.read_at < time::Duration::MINUTE);
        }
        let limited = projects.entry(project_id).or_insert(Limited {
            read_at: now,
            requests: None,
            tokens: None,
        });
        limited.read_at = now;
        let share = |limit: u64| (limit / u64::from(self.replicas)).max(1);
        for (bucket, limit) in [
            (&mut limited.requests, quotas.max_requests_per_minute),
            (&mut limited.tokens, quotas.max_tokens_per_minute),
        ] {
            match (bucket.as_mut(), limit) {
                (Some(bucket), Some(limit)) => bucket.set_limit(share(limit), now),
                (None, Some(limit)) => *bucket = Some(Bucket::full(share(limit), now)),
                (_, None) => *bucket = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProjectId, Limited>> {
        self.projects.lock().expect("no holder of the map panics")
    }
}

impl Limited {
    /// For the answer's headers.
    fn note(&mut self, now: OffsetDateTime) {
        let standings = Standings {
            requests: self.requests.as_mut().map(|bucket| bucket.standing(now)),
            tokens: self.tokens.as_mut().map(|bucket| bucket.standing(now)),
        };
        // Outside a request, as when a stream settles, nobody reads them.
        let _ = STANDINGS.try_with(|noted| {
            *noted.lock().expect("no holder of the standings panics") = standings;
        });
    }
}

/// The layer that tells a limited project where it stands, on every answer.
pub async fn show(request: Request, next: Next) -> Response {
    let answered = STANDINGS.scope(Mutex::default(), async {
        let response = next.run(request).await;
        let standings = STANDINGS.with(|noted| *noted.lock().expect("no holder panics"));
        (response, standings)
    });
    let (mut response, standings) = answered.await;
    let headers = response.headers_mut();
    add(headers, "requests", standings.requests);
    add(headers, "tokens", standings.tokens);
    response
}

/// OpenAI's three headers.
fn add(headers: &mut HeaderMap, what: &str, standing: Option<Standing>) {
    let Some(standing) = standing else { return };
    for (part, value) in [
        ("limit", standing.limit.to_string()),
        ("remaining", standing.remaining.to_string()),
        ("reset", shown(standing.reset)),
    ] {
        let name = format!("x-ratelimit-{part}-{what}");
        headers.insert(
            HeaderName::try_from(name).expect("letters and hyphens"),
            HeaderValue::try_from(value).expect("letters and digits"),
        );
    }
}

/// As OpenAI writes durations: `20ms`, `1s`, `6m0s`, `1h0m0s`. Rounded up, so that who waits as long waits long enough.
fn shown(duration: Duration) -> String {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let secs = ms.div_ceil(1000);
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, secs) => format!("{secs}s"),
        (0, minutes, secs) => format!("{minutes}m{secs}s"),
        (hours, minutes, secs) => format!("{hours}h{minutes}m{secs}s"),
    }
}

#[cfg(test)]
mod tests {
    use domain::ManualClock;
    use store::quotas::Quotas;

    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (ms, text) in [
            (0, "0ms"),
            (20, "20ms"),
            (1000, "1s"),
            (59_001, "1m0s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(shown(Duration::from_millis(ms)), text);
        }
    }

    /// Lets `n` requests of one project come, spread over the replicas by `choose`, and counts who gets through.
    fn admitted(replicas: &[Throttle], n: usize, choose: impl Fn(usize) -> usize) -> usize {
        let project_id = ProjectId(uuid::Uuid::nil());
        let quotas = Quotas {
            max_tokens_per_minute: Some(60),
            ..Quotas::default()
        };
        for replica in replicas {
            if !replica.knows(project_id, replica.clock.now()) {
                replica.learn(project_id, &quotas, replica.clock.now());
            }
        }
        let through = (0..n).filter(|n| {
            let hold = replicas[choose(*n)].hold_tokens(project_id, 1);
            // Dropping it keeps what was expected: nobody said what was used.
            hold.is_ok()
        });
        through.count()
    }

    #[test]
    fn however_requests_are_spread_replicas_together_keep_to_the_limit() {
        let manual = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        let replica = |_| Throttle::new(Clock::from(manual.clone()), 3);
        let replicas: Vec<Throttle> = (0..3).map(replica).collect();
        // Evenly: the limit. Then half a minute at one replica: a third of what the half minute brings.
        assert_eq!(admitted(&replicas, 300, |n| n % 3), 60);
        manual.advance(Duration::from_secs(30));
        assert_eq!(admitted(&replicas, 300, |_| 0), 10);
        assert_eq!(admitted(&replicas, 300, |n| n % 3), 20);
    }

    #[test]
    fn quiet_projects_are_forgotten_before_the_map_grows() {
        let manual = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        let throttle = Throttle::new(Clock::from(manual.clone()), 1);
        for n in 0..=MAX_PROJECTS as u128 {
            if n == MAX_PROJECTS as u128 {
                manual.advance(Duration::from_mins(1));
            }
            let id = ProjectId(uuid::Uuid::from_u128(n));
            throttle.learn(id, &Quotas::default(), throttle.clock.now());
        }
        assert_eq!(throttle.lock().len(), 1);
    }
}

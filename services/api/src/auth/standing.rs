//! Whether somebody who was let in still would be: for streams, which outlast the request that began them.
//!
//! One question to Postgres for all of them, however many there are: streams with the same key have the same [`Standing`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use domain::{ApiKeyId, Clock};
use store::sign_in::{self, Seat};
use store::{Store, StoreError, api_keys};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// Between two looks. With the look itself it stays below a second.
const PERIOD: Duration = Duration::from_millis(500);

/// What somebody's way into a project rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A key.
    Key(ApiKeyId),
    /// A user's place in the project, and their token.
    User {
        /// The place.
        seat: Seat,
        /// From when on the token is refused.
        until: OffsetDateTime,
    },
}

/// The callers of this process's streams. Cloning shares them.
#[derive(Clone)]
pub struct Callers(Arc<Shared>);

struct Shared {
    store: Store,
    clock: Clock,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    /// Who is gone from here, no stream waits for any more.
    lapses: HashMap<Standing, Weak<Lapse>>,
    /// Whether a task is looking; it ends when there is nobody left to look after.
    is_looking: bool,
}

/// The end of somebody's standing, which may come at any time.
#[derive(Default)]
pub(crate) struct Lapse(CancellationToken);

impl Lapse {
    /// Resolves when it has come.
    pub(crate) async fn come(&self) {
        self.0.cancelled().await;
    }

    /// Whether it has come.
    pub(crate) fn has_come(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl Callers {
    /// Callers who are looked up through `store`, whose login may be the service's own.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            store,
            clock,
            watched: Mutex::default(),
        }))
    }

    /// Looks after `standing` for as long as the answer is kept.
    pub(crate) fn watch(&self, standing: Standing) -> Arc<Lapse> {
        let mut watched = self.watched();
        let known = watched.lapses.get(&standing).and_then(Weak::upgrade);
        let lapse = known.unwrap_or_else(|| {
            let lapse = Arc::new(Lapse::default());
            watched.lapses.insert(standing, Arc::downgrade(&lapse));
            lapse
        });
        if !watched.is_looking {
            watched.is_looking = true;
            tokio::spawn(self.clone().look());
        }
        lapse
    }

    async fn look(self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let asked: Vec<Standing> = {
                let mut watched = self.watched();
                watched.lapses.retain(|_, lapse| lapse.strong_count() > 0);
                if watched.lapses.is_empty() {
                    watched.is_looking = false;
                    return;
                }
                watched.lapses.keys().copied().collect()
            };
            match self.standing(&asked).await {
                Ok(standing) => self.end_others(&asked, &standing),
                // Streams read from the same database: they tell nothing meanwhile.
                Err(error) => {
                    let chain = domain::failure::error_chain(&error);
                    tracing::warn!(error = %chain, "Could not ask who may go on listening: {chain}");
                }
            }
        }
    }

    /// Those of `asked` whose key or user, role, project and organization are there still, and whose token is good.
    async fn standing(&self, asked: &[Standing]) -> Result<HashSet<Standing>, StoreError> {
        let now = self.0.clock.now();
        let (mut keys, mut seats) = (Vec::new(), Vec::new());
        for standing in asked {
            match *standing {
                Standing::Key(id) => keys.push(id),
                Standing::User { seat, .. } => seats.push(seat),
            }
        }
        let mut tx = self.0.store.auth_tx().await?;
        let keys = api_keys::in_use(&mut tx, &keys, now).await?;
        let seats = if seats.is_empty() {
            HashSet::new()
        } else {
            sign_in::held(&mut tx, &seats).await?
        };
        tx.commit().await?;
        let stands = |standing: &&Standing| match standing {
            Standing::Key(id) => keys.contains(id),
            Standing::User { seat, until } => *until > now && seats.contains(seat),
        };
        Ok(asked.iter().filter(stands).copied().collect())
    }

    fn end_others(&self, asked: &[Standing], standing: &HashSet<Standing>) {
        let mut watched = self.watched();
        for lapsed in asked.iter().filter(|each| !standing.contains(each)) {
            let lapse = watched.lapses.remove(lapsed);
            if let Some(lapse) = lapse.and_then(|lapse| lapse.upgrade()) {
                lapse.0.cancel();
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        let watched = self.0.watched.lock();
        watched.unwrap_or_else(PoisonError::into_inner)
    }
}

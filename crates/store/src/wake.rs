//! Wakes workers that wait for a job. Only ever sooner: who never hears of it looks again by himself.
//!
//! Not part of the transaction that makes a job. Postgres lets one transaction with a NOTIFY commit at a time, which cost
//! half of all throughput; so a process says it at most every [`PERIOD`], for everything it committed meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::{Store, StoreError};

/// Jobs that are made within so long are announced together.
const PERIOD: Duration = Duration::from_millis(50);
const CHANNEL: &str = "attune_queue";

/// Whether an announcement is on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending(Arc<AtomicBool>);

impl Store {
    /// Says, a moment later, that there is something to claim. Call it after the commit. Says nothing when the
    /// database is away: the workers poll.
    pub fn wake_workers(&self) {
        if self.pending.0.swap(true, Ordering::AcqRel) {
            return;
        }
        let store = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PERIOD).await;
            // Before it is said: what is committed from here on is announced again.
            store.pending.0.store(false, Ordering::Release);
            let said = sqlx::query("SELECT pg_notify($1, '')")
                .bind(CHANNEL)
                .execute(store.pool())
                .await;
            if let Err(error) = said {
                tracing::debug!("Workers are not woken: {error}");
            }
        });
    }

    /// Hears of new jobs. Takes a connection of its own.
    pub async fn wakeups(&self) -> Result<Wakeups, StoreError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Wakeups(listener))
    }
}

/// What is heard.
#[derive(Debug)]
pub struct Wakeups(PgListener);

impl Wakeups {
    /// Waits for the next announcement. Connects again by itself; what was said meanwhile is missed.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        self.0.recv().await?;
        Ok(())
    }
}

//! A bounded shelf of things that are expensive to load: each is loaded once, however many ask for it at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Context;
use tokio::sync::OnceCell;

use crate::error::ChatError;

/// Keeps the most recently used values.
#[derive(Debug)]
pub(crate) struct Shelf<K, V> {
    capacity: usize,
    slots: Mutex<Slots<K, V>>,
}

#[derive(Debug)]
struct Slots<K, V> {
    by_key: HashMap<K, Slot<V>>,
    /// Counts accesses, so that the oldest can be told.
    n_accesses: u64,
}

type Cell<V> = Arc<OnceCell<Arc<V>>>;

#[derive(Debug)]
struct Slot<V> {
    cell: Cell<V>,
    last_access: u64,
}

impl<K, V> Shelf<K, V>
where
    K: Clone + Eq + Hash,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            slots: Mutex::new(Slots {
                by_key: HashMap::new(),
                n_accesses: 0,
            }),
        }
    }

    /// The value, loaded if it is not there. A load that fails leaves nothing behind; the next caller tries again.
    ///
    /// The load goes on when the caller goes away: a client that gives up while a large model is fetched, and comes
    /// back, would otherwise never see it.
    pub(crate) async fn get_or_load<F>(&self, key: &K, load: F) -> Result<Arc<V>, ChatError>
    where
        F: Future<Output = Result<V, ChatError>> + Send + 'static,
    {
        let cell = self.cell(key);
        if let Some(value) = cell.get() {
            return Ok(value.clone());
        }
        let loading = tokio::spawn(async move {
            let load = async { load.await.map(Arc::new) };
            cell.get_or_try_init(|| load).await.cloned()
        });
        loading.await.context("loading a model ended early")?
    }

    fn cell(&self, key: &K) -> Cell<V> {
        let mut slots = self.lock();
        slots.n_accesses += 1;
        let last_access = slots.n_accesses;
        let fresh = || Slot {
            cell: Cell::default(),
            last_access,
        };
        let slot = slots.by_key.entry(key.clone()).or_insert_with(fresh);
        slot.last_access = last_access;
        let cell = slot.cell.clone();
        slots.evict_down_to(self.capacity);
        cell
    }

    fn lock(&self) -> MutexGuard<'_, Slots<K, V>> {
        self.slots.lock().expect("no holder of the lock panics")
    }
}

impl<K: Clone + Eq + Hash, V> Slots<K, V> {
    /// Drops the oldest slots that nobody waits on. Whoever still uses a dropped value keeps it alive until done.
    fn evict_down_to(&mut self, capacity: usize) {
        while self.by_key.len() > capacity {
            let idle = self
                .by_key
                .iter()
                .filter(|(_, slot)| Arc::strong_count(&slot.cell) == 1);
            let oldest = idle
                .min_by_key(|(_, slot)| slot.last_access)
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.by_key.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    async fn loaded(shelf: &Shelf<u8, u8>, key: u8, n_loads: &Arc<AtomicUsize>) -> Arc<u8> {
        let n_loads = n_loads.clone();
        let load = async move {
            n_loads.fetch_add(1, Ordering::Relaxed);
            Ok(key)
        };
        shelf.get_or_load(&key, load).await.unwrap()
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_first() {
        let (shelf, n_loads) = (Shelf::new(2), Arc::default());
        for key in [1, 2, 1, 3] {
            loaded(&shelf, key, &n_loads).await;
        }
        assert_eq!(n_loads.load(Ordering::Relaxed), 3);
        loaded(&shelf, 1, &n_loads).await;
        assert_eq!(n_loads.load(Ordering::Relaxed), 3, "1 was used after 2");
        loaded(&shelf, 2, &n_loads).await;
        assert_eq!(n_loads.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn callers_at_the_same_time_share_one_load() {
        let (shelf, n_loads) = (Shelf::new(2), Arc::default());
        let all = futures::future::join_all((0..10).map(|_| loaded(&shelf, 7, &n_loads))).await;
        assert!(all.iter().all(|value| **value == 7));
        assert_eq!(n_loads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failed_load_is_tried_again() {
        let shelf = Shelf::<u8, u8>::new(2);
        let fails = async { Err(ChatError::Overloaded) };
        assert!(shelf.get_or_load(&1, fails).await.is_err());
        assert_eq!(*shelf.get_or_load(&1, async { Ok(5) }).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_load_survives_the_caller_that_began_it() {
        let shelf = Shelf::<u8, u8>::new(2);
        let (begun, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let load = {
            let (begun, may_end) = (begun.clone(), may_end.clone());
            async move {
                begun.notify_one();
                may_end.notified().await;
                Ok(5)
            }
        };
        tokio::select! {
            _ = shelf.get_or_load(&1, load) => panic!("the load cannot have ended"),
            () = begun.notified() => {}
        }
        may_end.notify_one();
        let second = async { Err(ChatError::Overloaded) };
        assert_eq!(*shelf.get_or_load(&1, second).await.unwrap(), 5);
    }
}

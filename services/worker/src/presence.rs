//! That this worker is there, told to the database every few seconds; and word from there that a job waits.

use std::sync::Arc;
use std::time::Duration;

use domain::WorkerKind;
use domain::failure::error_chain;
use store::workers::{self, Worker};
use store::{Store, StoreError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::debug;

/// How often it is told.
const PERIOD: Duration = Duration::from_secs(15);
/// The longest that a worker waits for the database when it takes its leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

pub(crate) struct Presence {
    store: Store,
    worker: Worker,
    wakeup: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl Presence {
    pub(crate) fn start(store: Store, name: &str, kind: WorkerKind) -> Self {
        let worker = Worker::new(name, kind);
        let wakeup = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(announce(store.clone(), worker.clone()));
        tasks.spawn(listen(store.clone(), wakeup.clone()));
        Self {
            store,
            worker,
            wakeup,
            tasks,
        }
    }

    /// Until there is word of a new job. It may never come: whoever waits looks anyway, after a while.
    pub(crate) async fn woken(&self) {
        self.wakeup.notified().await;
    }

    /// Takes leave, so that nobody counts on this worker.
    pub(crate) async fn end(&mut self) {
        self.tasks.shutdown().await;
        let leave = async {
            let mut tx = self.store.worker_tx().await?;
            workers::leave(&mut tx, &self.worker).await?;
            tx.commit().await
        };
        if let Ok(Err(error)) = tokio::time::timeout(LEAVE_WITHIN, leave).await {
            debug!("Cannot take leave: {}", error_chain(&error));
        }
    }
}

async fn announce(store: Store, worker: Worker) {
    loop {
        let told: Result<(), StoreError> = async {
            let mut tx = store.worker_tx().await?;
            workers::announce(&mut tx, &worker).await?;
            tx.commit().await
        }
        .await;
        if let Err(error) = told {
            debug!(
                "Cannot say that this worker is there: {}",
                error_chain(&error)
            );
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn listen(store: Store, wakeup: Arc<Notify>) {
    loop {
        let heard: Result<(), StoreError> = async {
            let mut wakeups = store.wakeups().await?;
            loop {
                wakeups.next().await?;
                wakeup.notify_one();
            }
        }
        .await;
        if let Err(error) = heard {
            debug!("Cannot hear of new jobs: {}", error_chain(&error));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

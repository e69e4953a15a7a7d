//! Wakes the streams of events: one question to Postgres twice a second for all of them, however many there are.
//!
//! A stream waits at a [`Watch`] and reads its events by itself, as its tenant, when the job has some that it did not
//! send. What is passed on here is a position, the latest one only: a slow client costs no memory and misses nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{JobId, ProjectId};
use store::feed::{self, Head};
use store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks. What a step of training says is written down twice a second as well.
const PERIOD: Duration = Duration::from_millis(500);
/// Streams that are open at once in one process.
const MAX_STREAMS: usize = 10_000;
/// Those of one project, so that none can keep the others out.
const MAX_STREAMS_OF_PROJECT: usize = 2_000;

/// The jobs that this process watches. Cloning shares them.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    store: Store,
    watched: Mutex<Watched>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Watched {
    jobs: HashMap<JobId, Job>,
    n_streams: usize,
    /// Whether a task is looking; it ends when there is nothing left to look at.
    is_looking: bool,
}

struct Job {
    project_id: ProjectId,
    head: watch::Sender<Option<Head>>,
    n_streams: usize,
}

/// A stream's place in the feed. Dropping it gives the place up.
pub(crate) struct Watch {
    feed: Feed,
    job_id: JobId,
    head: watch::Receiver<Option<Head>>,
}

impl Feed {
    /// A feed that looks through `store`, whose login may be the service's own.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Shared {
            store,
            watched: Mutex::default(),
            closed: CancellationToken::new(),
        }))
    }

    /// Ends every stream, now and from now on.
    pub fn close(&self) {
        self.0.closed.cancel();
    }

    /// Watches a job, or `None` if as many are watched as may be.
    pub(crate) fn watch(&self, project_id: ProjectId, job_id: JobId) -> Option<Watch> {
        let mut watched = self.watched();
        let jobs = watched.jobs.values();
        let of_project = jobs.filter(|job| job.project_id == project_id);
        let n_of_project: usize = of_project.map(|job| job.n_streams).sum();
        if watched.n_streams >= MAX_STREAMS || n_of_project >= MAX_STREAMS_OF_PROJECT {
            return None;
        }
        watched.n_streams += 1;
        let job = watched.jobs.entry(job_id).or_insert_with(|| Job {
            project_id,
            head: watch::Sender::new(None),
            n_streams: 0,
        });
        job.n_streams += 1;
        let head = job.head.subscribe();
        if !watched.is_looking {
            watched.is_looking = true;
            tokio::spawn(self.clone().look());
        }
        drop(watched);
        metrics::gauge!("attune_event_streams").increment(1.0);
        Some(Watch {
            feed: self.clone(),
            job_id,
            head,
        })
    }

    async fn look(self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = self.0.closed.cancelled() => {}
            }
            let jobs: Vec<(ProjectId, JobId)> = {
                let mut watched = self.watched();
                if watched.jobs.is_empty() || self.0.closed.is_cancelled() {
                    watched.is_looking = false;
                    return;
                }
                let jobs = watched.jobs.iter();
                jobs.map(|(id, job)| (job.project_id, *id)).collect()
            };
            match self.heads(&jobs).await {
                Ok(heads) => self.tell(heads),
                // Streams go on from where they are once the database is back.
                Err(error) => {
                    let chain = domain::failure::error_chain(&error);
                    tracing::warn!(error = %chain, "Could not look for events: {chain}");
                }
            }
        }
    }

    async fn heads(&self, jobs: &[(ProjectId, JobId)]) -> Result<Vec<Head>, StoreError> {
        let mut tx = self.0.store.feed_tx().await?;
        let heads = feed::heads(&mut tx, jobs).await?;
        tx.commit().await?;
        Ok(heads)
    }

    fn tell(&self, heads: Vec<Head>) {
        let watched = self.watched();
        for head in heads {
            if let Some(job) = watched.jobs.get(&head.job_id) {
                job.head.send_if_modified(|known| {
                    let is_news = *known != Some(head);
                    *known = Some(head);
                    is_news
                });
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        let watched = self.0.watched.lock();
        watched.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Waits until the job is further than `place`, or over. `None`: the service stops.
    pub(crate) async fn beyond(&mut self, place: i64) -> Option<Head> {
        let is_news =
            |head: &Option<Head>| head.is_some_and(|head| head.place > place || head.is_final);
        tokio::select! {
            biased;
            () = self.feed.0.closed.cancelled() => None,
            head = self.head.wait_for(is_news) => head.ok().and_then(|head| *head),
        }
    }

    /// Resolves when the service stops.
    pub(crate) fn is_closed(&self) -> bool {
        self.feed.0.closed.is_cancelled()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.feed.watched();
        watched.n_streams -= 1;
        if let Entry::Occupied(mut job) = watched.jobs.entry(self.job_id) {
            job.get_mut().n_streams -= 1;
            if job.get().n_streams == 0 {
                job.remove();
            }
        }
        drop(watched);
        metrics::gauge!("attune_event_streams").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_project_leaves_streams_to_the_others() {
        let feed = Feed::new(Store::connect_lazy("postgres://localhost/none").unwrap());
        let (busy, other, job) = (ProjectId::new(), ProjectId::new(), JobId::new());
        let mut open: Vec<_> = (0..MAX_STREAMS_OF_PROJECT)
            .map(|n| {
                feed.watch(busy, if n % 2 == 0 { job } else { JobId::new() })
                    .unwrap()
            })
            .collect();
        assert!(feed.watch(busy, job).is_none());
        assert!(feed.watch(other, JobId::new()).is_some());
        open.pop();
        assert!(feed.watch(busy, job).is_some());
    }
}

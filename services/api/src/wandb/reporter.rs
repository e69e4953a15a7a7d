//! Reports what workers stored. One loop in every API process; they take different runs.
//!
//! Reporting sees every project, so like sweeping it needs a login that may (the worker's).

use std::future::Future;
use std::time::Duration;

use domain::Clock;
use domain::failure::error_chain;
use futures::{StreamExt as _, stream};
use store::events::{self, EventLevel, NewEvent};
use store::jobs::{self, StoredJob};
use store::metrics::{RecordedStep, recorded};
use store::sealed::Keyring;
use store::wandb::accounts;
use store::wandb::runs::{self, Next, Place, Run};
use store::{Page, Store, StoreError, TenantTx};

use super::client::{Client, Credentials, ReportError};
use super::report;
use crate::jobs::integrations::{Integration, Wandb};

/// Between two looks at what is due.
const PERIOD: Duration = Duration::from_secs(1);
/// Servers that are talked to at once.
const AT_ONCE: usize = 16;
/// Runs taken at once.
const BATCH: u32 = 32;
/// After this a reporter is taken for dead. Two requests of ten seconds, and then some.
const LEASE: Duration = Duration::from_mins(2);
/// Between two reports of a job that runs. A run that says nothing for minutes is shown as crashed.
const PAUSE: Duration = Duration::from_secs(15);
/// Steps of one report.
const STEPS: u32 = 500;
/// Failures that pass by themselves are not worth a warning before there are so many in a row.
const PATIENCE: i32 = 3;

/// The reporter of one process.
#[derive(Clone)]
pub struct Reporter {
    store: Store,
    keyring: Keyring,
    client: Client,
    clock: Clock,
}

/// What a run is to be told of, and how.
struct News {
    job: StoredJob,
    asked: Wandb,
    credentials: Credentials,
    steps: Page<RecordedStep>,
    /// The step before `steps`, if it is the last that there is.
    last: Option<RecordedStep>,
}

/// Why a report was not made.
enum Trouble {
    Report(ReportError),
    Store(StoreError),
}

impl From<ReportError> for Trouble {
    fn from(error: ReportError) -> Self {
        Self::Report(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Reporter {
    /// `store` must have a login that may take on the worker's role.
    pub fn new(store: Store, keyring: Keyring, client: Client, clock: Clock) -> Self {
        Self {
            store,
            keyring,
            client,
            clock,
        }
    }

    /// Reports until `shutdown` resolves; what is under way then is sent again by the next process, to the same lines.
    /// Failures are logged, not returned.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let reported = tokio::select! {
                () = &mut shutdown => return,
                reported = self.report_due() => reported,
            };
            match reported {
                Ok(0) => {}
                Ok(_) => continue,
                Err(error) => {
                    let chain = error_chain(&error);
                    tracing::warn!(error = %chain, "Could not report to Weights & Biases: {chain}");
                }
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// One report of each run that is due, up to a batch of them. Says how many there were.
    ///
    /// # Errors
    /// The database failed. What was taken comes up again two minutes later.
    pub async fn report_due(&self) -> Result<usize, StoreError> {
        let mut tx = self.store.worker_tx().await?;
        let due = runs::take(&mut tx, BATCH, LEASE).await?;
        tx.commit().await?;
        let n = due.len();
        let reports = due
            .into_iter()
            .map(|run| async move { self.report(&run).await });
        let reported: Vec<Result<(), StoreError>> = stream::iter(reports)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        reported.into_iter().collect::<Result<(), StoreError>>()?;
        Ok(n)
    }

    async fn report(&self, run: &Run) -> Result<(), StoreError> {
        let (result, settled) = match self.tell(run).await {
            Ok(()) => ("reported", Ok(())),
            Err(Trouble::Report(error)) => ("failed", self.failed(run, &error).await),
            Err(Trouble::Store(error)) => ("failed", Err(error)),
        };
        metrics::counter!("attune_wandb_reports_total", "result" => result).increment(1);
        match settled {
            // Somebody else has taken it on since, and knows more.
            Err(StoreError::LeaseLost) => Ok(()),
            settled => settled,
        }
    }

    async fn tell(&self, run: &Run) -> Result<(), Trouble> {
        let Some(news) = self.news(run).await? else {
            return Ok(self.sent(run, run.last_step, 0, Next::Asleep).await?);
        };
        let place = match &run.place {
            Some(place) => place.clone(),
            None => self.make(run, &news).await?,
        };
        let (job, steps) = (&news.job.job, &news.steps);
        let ends = job.status.is_final() && !steps.has_more;
        let last = steps.data.last().or(news.last.as_ref());
        let addition = report::addition(&news.job, run.next_line, &steps.data, last, ends);
        let name = report::run_name(run.job_id, run.integration);
        self.client
            .stream(&news.credentials, &place, &name, &addition)
            .await?;
        let next = if ends {
            Next::Finished
        } else if steps.has_more {
            Next::After(Duration::ZERO)
        } else if report::has_begun(job) {
            Next::After(PAUSE)
        } else {
            Next::Asleep
        };
        let last_step = last.map_or(run.last_step, |step| step.metrics.step);
        let n_lines = steps.data.len() as u64;
        Ok(self.sent(run, last_step, n_lines, next).await?)
    }

    /// What there is to tell. None of a job that has not begun.
    async fn news(&self, run: &Run) -> Result<Option<News>, Trouble> {
        let mut tx = self.store.tenant_tx(run.project_id).await?;
        // Before its steps: those of a job that is over are all there.
        let job = jobs::find(&mut tx, run.job_id).await?;
        let job = job.ok_or(StoreError::LeaseLost)?;
        if run.place.is_none() && !report::has_begun(&job.job) {
            return Ok(None);
        }
        let credentials = self.credentials(&mut tx).await?;
        let steps = recorded(&mut tx, run.job_id, run.last_step, STEPS).await?;
        let last = match run.last_step.checked_sub(1) {
            Some(before) if steps.data.is_empty() => {
                let page = recorded(&mut tx, run.job_id, before, 1).await?;
                page.data.into_iter().next()
            }
            _ => None,
        };
        tx.commit().await?;
        let asked = asked(&job, run.integration)?;
        Ok(Some(News {
            job,
            asked,
            credentials,
            steps,
            last,
        }))
    }

    async fn credentials(&self, tx: &mut TenantTx) -> Result<Credentials, Trouble> {
        match accounts::open(tx, &self.keyring).await {
            Ok(Some((account, key))) => Ok(Credentials { account, key }),
            Ok(None) => Err(ReportError::NoAccount.into()),
            Err(error @ StoreError::Sealed { .. }) => {
                let chain = error_chain(&error);
                tracing::error!(error = %chain, "A key of Weights & Biases cannot be read: {chain}");
                Err(ReportError::Key.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the run there and tells the job where it is. Whoever dies in between makes it again, which is the same one.
    async fn make(&self, run: &Run, news: &News) -> Result<Place, Trouble> {
        let account = &news.credentials.account;
        let variables = report::run(&news.job, run.integration, &news.asked, account);
        let place = self
            .client
            .upsert_run(&news.credentials, &variables)
            .await?;
        let name = report::run_name(run.job_id, run.integration);
        let page = report::page(&account.base_url, &place, &name);
        let page = page.ok_or(ReportError::Unreadable)?;
        let mut tx = self.store.tenant_tx(run.project_id).await?;
        self.say(
            &mut tx,
            run,
            EventLevel::Info,
            format!("Weights & Biases run: {page}"),
        )
        .await?;
        runs::made(&mut tx, run, &place).await?;
        tx.commit().await?;
        Ok(place)
    }

    async fn sent(
        &self,
        run: &Run,
        last_step: u64,
        n_lines: u64,
        next: Next,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.tenant_tx(run.project_id).await?;
        runs::sent(&mut tx, run, last_step, run.next_line + n_lines, next).await?;
        tx.commit().await
    }

    async fn failed(&self, run: &Run, error: &ReportError) -> Result<(), StoreError> {
        let warns = !run.is_warned && (!error.is_passing() || run.n_failures + 1 >= PATIENCE);
        let mut tx = self.store.tenant_tx(run.project_id).await?;
        if warns {
            let text = format!(
                "Weights & Biases is not told how this job goes: {error}. It is tried again for up to three days; the job \
                 itself goes on"
            );
            self.say(&mut tx, run, EventLevel::Warn, text).await?;
        }
        let again = runs::failed(&mut tx, run, &error.to_string(), warns).await?;
        tx.commit().await?;
        if !again {
            let job = run.job_id;
            tracing::warn!(job.id = %job, "Gave up reporting `{job}` to Weights & Biases: {error}");
        }
        Ok(())
    }

    /// Appends to the job's events. The job's row comes first: whoever moves a job holds it when it wakes the run.
    async fn say(
        &self,
        tx: &mut TenantTx,
        run: &Run,
        level: EventLevel,
        text: String,
    ) -> Result<(), StoreError> {
        jobs::find_for_update(tx, run.job_id).await?;
        let event = NewEvent::message(level, text, self.clock.now());
        events::append(tx, run.job_id, &[event]).await
    }
}

/// What the job asked for at this place of its integrations.
fn asked(job: &StoredJob, integration: usize) -> Result<Wandb, StoreError> {
    let stored = job.request.integrations.get(integration).cloned();
    let read = serde_json::from_value::<Integration>(stored.unwrap_or_default());
    read.map(|integration| integration.wandb)
        .map_err(|source| StoreError::Corrupt {
            what: "integration of a job",
            source: source.into(),
        })
}

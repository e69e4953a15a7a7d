//! One claimed job, from its files to its model.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::job::JobError;
use domain::{Failure, FileId, Job, JobData, JobStatus};
use lm::Adapter;
use store::events::{EventLevel, NewEvent};
use store::models::ResolvedModel;
use store::queue::{self, Claimed};
use store::{Lease, StoreError, events, lease, models};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use training::memory::{self, Room};
use training::report::Draft;
use training::{Checkpoint, Format, Next, Probe, Rows, Run, Trained};

use crate::Worker;
use crate::failure::Stop;
use crate::findings;
use crate::heart::{Heart, Signal};
use crate::inputs::{self, Base, blocking};
use crate::observe::{Message, Reporter};
use crate::publish;
use crate::report::Report;
use crate::resume;
use crate::scratch;
use crate::start::{self, Start};
use crate::upload::Uploads;

/// Pause before a job's end is reported again while Postgres is away.
const REPORT_AGAIN: Duration = Duration::from_secs(2);
/// The longest pause before a job is tried again whose storage is away.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// Where a request names the file whose rows are mixed in.
const REPLAY_FILE: &str = "attune.replay.file";
/// What the tenant reads while the operator brings storage back.
const STORAGE_AWAY: &str = "Storage could not be reached; the job will go on when it is back";
/// What the tenant reads once nothing computes for a paused job any more.
const SET_ASIDE: &str = "The worker has stored where it was and handed the job back";

/// Runs a claimed job and reports how it ended.
pub(crate) async fn run(worker: &mut Worker, claimed: Claimed) {
    let signal = Arc::new(Signal::default());
    let heart = Heart::start(
        worker.store.clone(),
        claimed.lease.clone(),
        worker.config.lease(),
        signal.clone(),
        worker.leaving.clone(),
    );
    let mut attempt = Attempt {
        worker,
        lease: claimed.lease.clone(),
        job: claimed.job.clone(),
        signal,
    };
    match attempt.work().await {
        Ok(()) => info!(job.id = %claimed.job.id, "Job `{}` succeeded", claimed.job.id),
        Err(stop) => attempt.close(&stop, &claimed).await,
    }
    drop(heart);
}

pub(crate) struct Attempt<'a> {
    pub(crate) worker: &'a mut Worker,
    pub(crate) lease: Lease,
    pub(crate) job: Job,
    pub(crate) signal: Arc<Signal>,
}

/// What training needs, all of it in memory.
struct Prepared {
    base: Arc<Base>,
    train: Rows,
    replay: Option<Rows>,
    valid: Option<Rows>,
    probe: Probe,
    /// The adapter that the job goes on from.
    initial: Option<Adapter>,
    resume: Option<Box<Checkpoint>>,
}

impl Attempt<'_> {
    async fn work(&mut self) -> Result<(), Stop> {
        let dir = self.work_dir()?;
        let prepared = self.prepare(dir.path()).await?;
        self.begin(&prepared).await?;
        let checkpoints = dir.path().join("checkpoints");
        std::fs::create_dir_all(&checkpoints).map_err(|error| Failure::transient(&error))?;
        info!(job.id = %self.job.id, "Training `{}`", self.job.id);
        let (trained, draft) = self.train(prepared, checkpoints).await?;
        if !trained.finished {
            return Err(if self.signal.is_lost() {
                Stop::LeaseLost
            } else {
                Stop::Leaving
            });
        }
        publish::publish(self, &trained, draft, dir.path()).await
    }

    async fn prepare(&mut self, dir: &Path) -> Result<Box<Prepared>, Stop> {
        let model = self.resolve_model().await?;
        // Before a base is loaded for nothing.
        let Worker { store, buckets, .. } = &*self.worker;
        let objects = buckets.of_project(store, self.lease.project_id).await?;
        objects.check_own().await?;
        self.go_on()?;
        let Worker {
            bases,
            buckets,
            device,
            config,
            ..
        } = &mut *self.worker;
        let machine = (&*device, config.max_memory_bytes);
        let base = bases
            .get(&model.base, &self.job.config, buckets.shared(), machine)
            .await?;
        self.go_on()?;
        let Start {
            base,
            adapter: initial,
        } = start::of(self.worker, &self.job, &model, base, dir).await?;
        let train = self
            .rows("training_file", self.job.training_file, &base, dir)
            .await?;
        let valid = match self.job.validation_file {
            Some(file) => Some(self.rows("validation_file", file, &base, dir).await?),
            None => None,
        };
        let replay = match self.replay_file()? {
            Some(file) => Some(self.rows(REPLAY_FILE, file, &base, dir).await?),
            None => None,
        };
        self.job.data = Some(JobData {
            training_file: train.report.clone(),
            validation_file: valid.as_ref().map(|rows| rows.report.clone()),
            replay_file: replay.as_ref().map(|rows| rows.report.clone()),
        });
        self.go_on()?;
        let now = self.worker.clock.now();
        let files = [
            ("training_file", Some(&train)),
            ("validation_file", valid.as_ref()),
            (REPLAY_FILE, replay.as_ref()),
        ];
        self.say(findings::events(files, now)).await?;
        let probe = Probe::new(&base.text, self.max_seq_len())
            .map_err(|error| Failure::bug(domain::failure::error_chain(&error)))?;
        Ok(Box::new(Prepared {
            initial,
            resume: resume::latest(self, &base, dir).await?.map(Box::new),
            base,
            train,
            replay,
            valid,
            probe,
        }))
    }

    /// Between two stages of the preparation: whether there is to be another.
    fn go_on(&self) -> Result<(), Stop> {
        match self.signal.next() {
            Next::Continue => Ok(()),
            Next::SaveAndStop => Err(Stop::Leaving),
            Next::Abandon => Err(Stop::LeaseLost),
        }
    }

    /// For the objects that this attempt stores.
    pub(crate) async fn uploads(&self) -> Result<Uploads, Stop> {
        let Worker { store, buckets, .. } = &*self.worker;
        Uploads::begin(store, buckets, &self.lease).await
    }

    fn max_seq_len(&self) -> usize {
        Format::of(&self.job.config).max_seq_len
    }

    /// The file whose rows are mixed in. The API has looked at its id.
    fn replay_file(&self) -> Result<Option<FileId>, Failure> {
        let replay = self.job.config.care.replay.as_ref();
        let Some(file) = replay.and_then(|replay| replay.file.as_deref()) else {
            return Ok(None);
        };
        file.parse().map(Some).map_err(|_| {
            let message = format!("`{file}` is not the id of a file");
            Failure::rejected("file_not_found", Some(REPLAY_FILE), message)
        })
    }

    async fn resolve_model(&self) -> Result<ResolvedModel, Stop> {
        let mut tx = self.worker.store.tenant_tx(self.lease.project_id).await?;
        let model = models::resolve(&mut tx, &self.job.model).await?;
        tx.commit().await?;
        model.ok_or_else(|| {
            let message = format!("the model `{}` does not exist any more", self.job.model);
            Failure::rejected("model_not_found", Some("model"), message).into()
        })
    }

    async fn rows(
        &self,
        param: &'static str,
        file: FileId,
        base: &Arc<Base>,
        dir: &Path,
    ) -> Result<Rows, Stop> {
        self.go_on()?;
        info!(job.id = %self.job.id, "Reading the {param} of `{}`", self.job.id);
        let Worker { store, buckets, .. } = &*self.worker;
        inputs::rows(
            (store, buckets),
            &self.lease,
            (param, file),
            (base, &self.job),
            dir,
        )
        .await
    }

    /// Marks the job as running, unless it was paused while its files were read. Metrics and checkpoints beyond where it
    /// resumes are forgotten, and the events of their steps withdrawn.
    async fn begin(&mut self, prepared: &Prepared) -> Result<(), Stop> {
        let now = self.worker.clock.now();
        let info = |message| NewEvent::message(EventLevel::Info, message, now);
        let (step, said) = match &prepared.resume {
            Some(checkpoint) => {
                let resumed = info(format!("Resumed from step {}", checkpoint.step));
                let warning = checkpoint
                    .other_kernels(&prepared.base.model)
                    .map(|message| NewEvent::message(EventLevel::Warn, message, now));
                (
                    checkpoint.step,
                    [resumed].into_iter().chain(warning).collect(),
                )
            }
            None => (0, vec![info("Fine-tuning job started".to_owned())]),
        };
        let mut tx = self.worker.store.tenant_tx(self.lease.project_id).await?;
        let stands = lease::job(&mut tx, &self.lease).await?;
        if stands.status == JobStatus::Paused {
            return Err(Stop::Leaving);
        }
        let found = Job {
            data: self.job.data.clone(),
            ..stands
        };
        let job = found
            .start()
            .map_err(|error| Failure::bug(error.to_string()))?;
        lease::resume_from(&mut tx, &self.lease, step).await?;
        lease::save(&mut tx, &self.lease, &job).await?;
        events::report(&mut tx, &self.lease, &said).await?;
        tx.commit().await?;
        self.job = job;
        Ok(())
    }

    async fn train(
        &mut self,
        prepared: Box<Prepared>,
        checkpoints: std::path::PathBuf,
    ) -> Result<(Trained, Draft), Stop> {
        let (messages, received) = mpsc::unbounded_channel();
        let mut reporter = Reporter {
            messages,
            signal: self.signal.clone(),
        };
        let config = self.job.config.clone();
        let (max_bytes, code) = (
            self.worker.config.max_memory_bytes,
            self.worker.config.code.clone(),
        );
        let training = blocking(move || {
            let run = Run {
                model: &prepared.base.model,
                base_fingerprint: &prepared.base.fingerprint,
                tuned_weights: prepared.base.tuned_weights.as_deref(),
                config: &config,
                train: &prepared.train,
                replay: prepared.replay.as_ref(),
                valid: prepared.valid.as_ref(),
                probe: Some(&prepared.probe),
                initial: prepared.initial,
                resume: prepared.resume,
                checkpoint_dir: &checkpoints,
            };
            // The process may have run larger jobs before.
            memory::forget_peak();
            let estimate = training::estimate(&run, Room::now(max_bytes))?;
            reporter.tell(Message::Estimated(Box::new(estimate.clone())));
            let draft = Draft::new(&run, code, estimate);
            Ok((training::train(run, &mut reporter)?, draft))
        });
        let report = Report::new(self);
        let (outcome, stored) = tokio::join!(training, report.run(received));
        stored?;
        outcome
    }

    /// Stores events of this attempt.
    pub(crate) async fn say(&self, said: Vec<NewEvent>) -> Result<(), Stop> {
        let mut tx = self.worker.store.tenant_tx(self.lease.project_id).await?;
        events::report(&mut tx, &self.lease, &said).await?;
        Ok(tx.commit().await?)
    }

    fn work_dir(&self) -> Result<TempDir, Stop> {
        scratch::create(&self.worker.config.attempts_dir(), self.job.id)
            .map_err(|error| Failure::transient(&error).into())
    }

    /// Reports how the attempt ended, however long Postgres stays away, unless the job is not ours any more.
    async fn close(&self, stop: &Stop, claimed: &Claimed) {
        loop {
            match self.try_close(stop, claimed).await {
                Ok(()) => return,
                Err(StoreError::LeaseLost) => {
                    return info!(job.id = %self.job.id, "Job `{}` went on without us", self.job.id);
                }
                Err(error) if error.is_transient() && !self.worker.leaving.is_cancelled() => {
                    warn!(job.id = %self.job.id, "Cannot report the end of `{}` yet: {error}", self.job.id);
                    tokio::time::sleep(REPORT_AGAIN).await;
                }
                // The lease runs out and another attempt finds the job as it is.
                Err(error) => {
                    let error = anyhow::Error::new(error).context("cannot report the end of a job");
                    return error!(job.id = %self.job.id, "{error:#}");
                }
            }
        }
    }

    /// Hands the job back until storage is there again.
    async fn set_aside(&self, told: &str, message: &str) -> Result<(), StoreError> {
        warn!(job.id = %self.job.id, "Job `{}` waits for storage: {message}", self.job.id);
        let now = self.worker.clock.now();
        let mut tx = self.worker.store.tenant_tx(self.lease.project_id).await?;
        let event = NewEvent::message(EventLevel::Warn, told.to_owned(), now);
        let event = event.of_attempt(self.lease.attempt);
        events::report(&mut tx, &self.lease, &[event]).await?;
        let delay = queue::backoff(self.lease.attempt).min(LOOK_AGAIN);
        lease::release(&mut tx, &self.lease, delay).await?;
        tx.commit().await
    }

    async fn try_close(&self, stop: &Stop, claimed: &Claimed) -> Result<(), StoreError> {
        let now = self.worker.clock.now();
        let failure = match stop {
            Stop::LeaseLost => return Err(StoreError::LeaseLost),
            Stop::Leaving => {
                let mut tx = self.worker.store.tenant_tx(self.lease.project_id).await?;
                let job = lease::release(&mut tx, &self.lease, Duration::ZERO).await?;
                if job.status == JobStatus::Paused {
                    let event = NewEvent::message(EventLevel::Info, SET_ASIDE.to_owned(), now);
                    events::append(&mut tx, job.id, &[event]).await?;
                }
                return tx.commit().await;
            }
            Stop::Away { message } => return self.set_aside(STORAGE_AWAY, message).await,
            Stop::OwnBucket {
                message,
                told,
                may_pass: true,
            } => {
                let told = format!("{told}; the job will go on when that is mended");
                return self.set_aside(&told, message).await;
            }
            Stop::OwnBucket { message, told, .. } => {
                warn!(job.id = %self.job.id, "Job `{}`: {message}", self.job.id);
                let message = told.clone();
                &Failure::Transient { message }
            }
            Stop::Failed(failure) => failure,
        };
        match failure {
            Failure::Rejected { message, .. } => {
                info!(job.id = %self.job.id, "Job `{}` was rejected: {message}", self.job.id);
            }
            failure => warn!(job.id = %self.job.id, "Job `{}`: {failure}", self.job.id),
        }
        self.end(failure, claimed.max_attempts, now).await
    }

    /// Hands the job back after a temporary failure while it has attempts left, and fails it otherwise.
    async fn end(
        &self,
        failure: &Failure,
        max_attempts: i32,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let attempt = self.lease.attempt;
        let say = |level, text| NewEvent::message(level, text, now).of_attempt(attempt);
        let mut tx = self.worker.store.tenant_tx(self.lease.project_id).await?;
        if let Failure::Transient { message } = failure {
            let delay = queue::backoff(attempt);
            match lease::retry_later(&mut tx, &self.lease, delay, message).await {
                Ok(job) => {
                    let text = format!(
                        "Attempt {attempt} of {max_attempts} failed: {message}; the job will be tried again"
                    );
                    events::append(&mut tx, job.id, &[say(EventLevel::Warn, text)]).await?;
                    return tx.commit().await;
                }
                Err(StoreError::NoAttemptLeft) => {}
                Err(error) => return Err(error),
            }
        }
        let error = JobError::from(failure);
        let text = format!("The job failed: {}", error.message);
        events::report(&mut tx, &self.lease, &[say(EventLevel::Error, text)]).await?;
        let job = self.job.clone().fail(error, now)?;
        lease::save(&mut tx, &self.lease, &job).await?;
        tx.commit().await
    }
}

//! The loop that answers batches.
//!
//! It works in turns: claims the batch whose project was served longest ago, goes on with it for a while, and lets
//! the next one come. Everything that is done is in Postgres at once, each line under the fence of the turn, so that
//! a replica may die at any point: when its lease runs out, another asks for the lines that have no answer. A line may
//! be asked for twice then, but it is answered once. Turns are claimed over every project, so the loop needs a login
//! that may (the worker's); the service's own may not.

use std::time::Duration;

use artifacts::{ArtifactError, keys};
use buckets::{BucketError, Buckets, ProjectObjects};
use domain::batch::{BatchError, InputError};
use domain::limits::MAX_LINE_BYTES;
use domain::{Batch, BatchStatus, Clock, FileId};
use futures::TryStreamExt as _;
use store::batches::lines::{self, Answer, Line};
use store::batches::turns::{self, Turn};
use store::quotas::{self, QuotaExceeded};
use store::{Store, StoreError, batches};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Asked};
use super::finish;
use super::input::{self, Input};
use super::output::no_room;
use crate::InferenceClient;
use crate::throttle::Throttle;

/// Turns that one replica takes at once: each is another project's.
const TURNS_AT_ONCE: usize = 4;
/// Requests of one batch under way at once.
const LINES_AT_ONCE: usize = 4;
/// Lines read from the database, or written to it, at once.
const PAGE: u32 = 200;
/// The longest wait between two tries of a line.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The longest wait of a line whose project is at its limit: what other lines were expected to take and did not comes
/// back at any time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How fast the loop goes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long a turn is before others come first.
    pub turn: Duration,
    /// How long a turn holds without a sign of life.
    pub lease: Duration,
    /// Between two signs of life, which also notice that a batch was cancelled.
    pub heartbeat: Duration,
    /// Between two looks for a turn when there is none.
    pub poll: Duration,
    /// The first wait before a line is tried again.
    pub backoff: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(20),
            lease: Duration::from_mins(1),
            heartbeat: Duration::from_secs(2),
            poll: Duration::from_secs(1),
            backoff: Duration::from_secs(1),
        }
    }
}

/// What ends a turn early. The next one goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The turn went to somebody else, or the batch has ended.
    #[error("the turn at the batch is lost")]
    LeaseLost,
    /// The batch was cancelled between two steps.
    #[error("the batch moved on meanwhile")]
    Moved(#[from] BatchError),
    /// The project may not store what was answered.
    #[error("the project has no room for the batch's files")]
    Full(#[source] QuotaExceeded),
    /// The database failed.
    #[error("the database failed while a batch was answered")]
    Store(#[source] StoreError),
    /// The bucket failed.
    #[error("the bucket failed while a batch was answered")]
    Artifacts(#[from] ArtifactError),
    /// It is not known which bucket.
    #[error("the bucket of a batch's project was not found")]
    Bucket(#[from] BucketError),
    /// Something of ours panicked.
    #[error("answering a line panicked")]
    Panic(#[from] tokio::task::JoinError),
}

impl From<StoreError> for TurnError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost => Self::LeaseLost,
            StoreError::Quota(exceeded) => Self::Full(exceeded),
            error => Self::Store(error),
        }
    }
}

impl TurnError {
    /// What the tenant can mend, if that is what ended the turn.
    fn own_bucket(&self) -> Option<InputError> {
        let Self::Artifacts(error) = self else {
            return None;
        };
        error.own_bucket().map(|fault| InputError {
            code: fault.code.to_owned(),
            line: None,
            message: fault.message,
            param: None,
        })
    }

    /// Of a stream of ours that was being stored.
    pub(super) fn of_source(source: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => *error,
            Err(source) => Self::Artifacts(ArtifactError::Source {
                key: "a batch's file".to_owned(),
                source,
            }),
        }
    }
}

/// The loop of one replica. Several may run; they take different turns.
#[derive(Clone)]
pub struct Runner {
    pub(super) store: Store,
    pub(super) buckets: Buckets,
    pub(super) clock: Clock,
    inference: InferenceClient,
    throttle: Throttle,
    pace: Pace,
}

impl Runner {
    /// `store` must have a login that may take on the worker's role. `throttle` is the one that chats go by.
    pub fn new(
        store: Store,
        buckets: Buckets,
        clock: Clock,
        inference: InferenceClient,
        throttle: Throttle,
        pace: Pace,
    ) -> Self {
        Self {
            store,
            buckets,
            clock,
            inference,
            throttle,
            pace,
        }
    }

    /// Takes turns until `stop`. Failures are logged, not returned.
    pub async fn run(self, stop: CancellationToken) {
        let mut loops = JoinSet::new();
        for _ in 0..TURNS_AT_ONCE {
            let (runner, stop) = (self.clone(), stop.clone());
            loops.spawn(async move {
                while !stop.is_cancelled() {
                    let had_turn = runner.take_turn(&stop).await.unwrap_or_else(|error| {
                        let chain = domain::failure::error_chain(&error);
                        tracing::warn!(error = %chain, "A turn at a batch ended early: {chain}");
                        false
                    });
                    if !had_turn {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = sleep(runner.pace.poll) => {}
                        }
                    }
                }
            });
        }
        while loops.join_next().await.is_some() {}
    }

    /// Takes one turn, if one is due. Says whether there was one.
    ///
    /// # Errors
    /// What ended it early.
    pub async fn take_turn(&self, stop: &CancellationToken) -> Result<bool, TurnError> {
        let mut tx = self.store.worker_tx().await?;
        let claimed = turns::claim(&mut tx, self.pace.lease).await?;
        tx.commit().await?;
        let Some((batch, turn)) = claimed else {
            return Ok(false);
        };
        let was_held_up = batch.errors.is_some();
        let worked = tokio::select! {
            worked = Box::pin(self.work_while_held(batch, &turn)) => worked,
            () = stop.cancelled() => Ok(()),
        };
        let fault = worked.as_ref().err().and_then(TurnError::own_bucket);
        if fault.is_some() || worked.is_ok() && was_held_up {
            self.tell(&turn, fault).await?;
        }
        let mut tx = self.store.worker_tx().await?;
        turns::release(&mut tx, &turn).await?;
        tx.commit().await?;
        match worked {
            // Not failures: somebody else goes on, or the next turn does with what the batch has become.
            Err(TurnError::LeaseLost | TurnError::Moved(_)) => Ok(true),
            worked => worked.map(|()| true),
        }
    }

    /// Tells the tenant what holds the batch up, or that it goes on.
    async fn tell(&self, turn: &Turn, fault: Option<InputError>) -> Result<(), TurnError> {
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        match turns::hold(&mut tx, turn).await {
            Ok(batch) => batches::save(&mut tx, &batch.held_up_by(fault)?).await?,
            // It went on with somebody else, or ended.
            Err(StoreError::LeaseLost) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(tx.commit().await?)
    }

    async fn work_while_held(&self, batch: Batch, turn: &Turn) -> Result<(), TurnError> {
        let was_cancelled = batch.status == BatchStatus::Cancelling;
        tokio::select! {
            worked = self.work(batch, turn) => return worked,
            cancelled = self.keep(turn, !was_cancelled) => cancelled?,
        }
        // What was under way is dropped with its connections, so nobody computes for nothing.
        tokio::select! {
            written = self.write_files(turn) => written,
            lost = self.keep(turn, false) => lost,
        }
    }

    /// Gives signs of life. Returns when the batch has been cancelled, if that is of interest.
    async fn keep(&self, turn: &Turn, notice_cancel: bool) -> Result<(), TurnError> {
        loop {
            sleep(self.pace.heartbeat).await;
            match self.heartbeat(turn).await {
                Ok(BatchStatus::Cancelling) if notice_cancel => return Ok(()),
                Ok(_) => {}
                Err(StoreError::LeaseLost) => return Err(TurnError::LeaseLost),
                // The lease may hold until the database is back; if not, no write gets through.
                Err(error) => {
                    let chain = domain::failure::error_chain(&error);
                    tracing::warn!(error = %chain, "A batch's turn could not be extended: {chain}");
                }
            }
        }
    }

    async fn heartbeat(&self, turn: &Turn) -> Result<BatchStatus, StoreError> {
        let mut tx = self.store.worker_tx().await?;
        let status = turns::heartbeat(&mut tx, turn, self.pace.lease).await?;
        tx.commit().await?;
        Ok(status)
    }

    /// Moves the batch on as far as the turn goes.
    async fn work(&self, batch: Batch, turn: &Turn) -> Result<(), TurnError> {
        let is_over = self.clock.now() >= batch.expires_at;
        let batch = match batch.status {
            BatchStatus::Cancelling | BatchStatus::Finalizing => {
                return self.write_files(turn).await;
            }
            BatchStatus::Validating | BatchStatus::InProgress if is_over => {
                return self.write_files(turn).await;
            }
            BatchStatus::Validating => self.validate(&batch, turn).await?,
            _ => batch,
        };
        if batch.status.is_final() {
            return Ok(());
        }
        match self.answer_lines(&batch, turn).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(TurnError::Full(exceeded)) => return self.give_up(turn, &exceeded).await,
            Err(error) => return Err(error),
        }
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        let batch = turns::hold(&mut tx, turn).await?;
        batches::save(&mut tx, &batch.finalize(self.clock.now())?).await?;
        tx.commit().await?;
        self.write_files(turn).await
    }

    /// Reads the input. The batch is in progress or failed then.
    async fn validate(&self, batch: &Batch, turn: &Turn) -> Result<Batch, TurnError> {
        let key = keys::file(batch.project_id, batch.input_file);
        let Input {
            lines,
            model,
            mut errors,
            ..
        } = match self.objects(turn).await?.get_stream(&key).await {
            Ok(file) => input::read(file.stream).await?,
            Err(ArtifactError::NotFound { .. }) => Input::gone(),
            Err(error) => return Err(error.into()),
        };
        let now = self.clock.now();
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        let batch = turns::hold(&mut tx, turn).await?;
        // Where not one byte could be kept, nothing need be answered.
        if let Err(StoreError::Quota(exceeded)) = quotas::room(&mut tx, 1).await {
            errors.push(no_room(&exceeded));
        }
        if !errors.is_empty() {
            let batch = batch.fail(errors, now)?;
            finish::finish(&mut tx, &batch).await?;
            tx.commit().await?;
            finish::report(&batch);
            return Ok(batch);
        }
        let batch = batch.start(lines.len() as u64, model, now)?;
        for page in lines.chunks(PAGE as usize) {
            lines::create(&mut tx, turn, page).await?;
        }
        batches::save(&mut tx, &batch).await?;
        tx.commit().await?;
        Ok(batch)
    }

    /// Answers lines until the turn is over. Says whether every line has its answer.
    async fn answer_lines(&self, batch: &Batch, turn: &Turn) -> Result<bool, TurnError> {
        self.check_room(turn).await?;
        let objects = self.objects(turn).await?;
        let until = Instant::now() + self.pace.turn;
        let mut after = 0;
        // Dropping the set aborts what is under way.
        let mut under_way = JoinSet::new();
        while Instant::now() < until {
            let page = self.waiting(turn, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.line;
            for line in page {
                if under_way.len() >= LINES_AT_ONCE
                    && let Some(done) = under_way.join_next().await
                {
                    done??;
                }
                if Instant::now() >= until {
                    break;
                }
                let input = (objects.clone(), batch.input_file);
                let answering = self.clone().answer_line(turn.clone(), input, line, until);
                under_way.spawn(answering);
            }
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(self.waiting(turn, 0, 1).await?.is_empty())
    }

    /// Whether what was answered so far could be kept: if not, the rest need not be answered.
    async fn check_room(&self, turn: &Turn) -> Result<(), TurnError> {
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        if let Some(room) = quotas::left(&mut tx).await?
            && lines::answered_bytes(&mut tx, turn.batch_id).await? > room.bytes()
        {
            return Err(TurnError::Full(room.exceeded()));
        }
        Ok(tx.commit().await?)
    }

    async fn waiting(&self, turn: &Turn, after: u64, limit: u32) -> Result<Vec<Line>, TurnError> {
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        let lines = lines::waiting(&mut tx, turn.batch_id, after, limit).await?;
        tx.commit().await?;
        Ok(lines)
    }

    /// Asks for one line, again and again if it must, and records its answer. A line that has none when the turn is
    /// over is left to the next.
    async fn answer_line(
        self,
        turn: Turn,
        (objects, input_file): (ProjectObjects, FileId),
        line: Line,
        until: Instant,
    ) -> Result<(), TurnError> {
        let key = keys::file(turn.project_id, input_file);
        let answer = match text(&objects, &key, &line).await {
            Ok(text) => self.ask(&turn, &line, &text, until).await?,
            // It expired while the batch was under way.
            Err(ArtifactError::NotFound { .. }) => Some(answer::without_input(&line)),
            Err(error) => return Err(error.into()),
        };
        let Some(answer) = answer else { return Ok(()) };
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        let is_new = lines::record(&mut tx, &turn, line.line, &answer).await?;
        tx.commit().await?;
        if is_new {
            let outcome = if answer.is_error { "error" } else { "answer" };
            metrics::counter!("attune_batch_lines_total", "outcome" => outcome).increment(1);
        }
        Ok(())
    }

    /// Asks until there is an answer, or the turn is over.
    async fn ask(
        &self,
        turn: &Turn,
        line: &Line,
        text: &[u8],
        until: Instant,
    ) -> Result<Option<Answer>, TurnError> {
        let project_id = turn.project_id;
        let mut backoff = self.pace.backoff;
        loop {
            self.throttle.refresh(&self.store, project_id).await?;
            let asked = answer::ask(&self.inference, &self.throttle, project_id, line, text);
            let wait = match asked.await {
                Asked::Answered(answer) => return Ok(Some(answer)),
                Asked::Limited(wait) => wait.min(LOOK_AGAIN),
                Asked::Later(wait) => {
                    let wait = wait.unwrap_or(backoff).max(backoff);
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    wait
                }
            };
            let again = Instant::now() + wait;
            tokio::time::sleep_until(again.min(until)).await;
            if again >= until {
                return Ok(None);
            }
        }
    }

    /// Where the objects of the batch's project are now.
    async fn objects(&self, turn: &Turn) -> Result<ProjectObjects, TurnError> {
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        let objects = self.buckets.of(&mut tx).await?;
        tx.commit().await?;
        Ok(objects)
    }
}

/// The line as it stands in the input.
async fn text(objects: &ProjectObjects, key: &str, line: &Line) -> Result<Vec<u8>, ArtifactError> {
    let range = line.start_byte..line.start_byte + line.n_bytes;
    let mut part = objects.get_range(key, range).await?;
    let mut text = Vec::new();
    while let Some(chunk) = part.stream.try_next().await? {
        if text.len() + chunk.len() > MAX_LINE_BYTES {
            break;
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

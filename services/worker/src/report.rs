//! Moves what the training thread says to Postgres and S3, and waits there while they are away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use artifacts::keys;
use buckets::Buckets;
use domain::{Clock, Failure};
use serde_json::json;
use store::checkpoints::{CheckpointMetrics, NewCheckpoint};
use store::events::{EventLevel, NewEvent};
use store::metrics::StepMetrics;
use store::{Lease, Store, checkpoints, events, lease, metrics};
use time::OffsetDateTime;
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::warn;
use training::{Estimate, Evaluation, StepReport};

use crate::attempt::Attempt;
use crate::failure::Stop;
use crate::heart::Signal;
use crate::observe::Message;
use crate::upload::Uploads;

/// Steps are written together, at the latest this long after the first of them.
const FLUSH_AFTER: Duration = Duration::from_millis(500);
/// How long a running job waits for the bucket of its project: another tenant's job could have the worker meanwhile. It
/// goes on from its last checkpoint later.
const OWN_BUCKET_PATIENCE: Duration = Duration::from_mins(1);
/// Pause while Postgres or S3 is away.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// The receiving end of an attempt's messages.
pub(crate) struct Report {
    store: Store,
    buckets: Buckets,
    clock: Clock,
    lease: Lease,
    estimated_finish: Option<OffsetDateTime>,
    signal: Arc<Signal>,
    steps: Vec<StepReport>,
    said: Vec<NewEvent>,
}

impl Report {
    pub(crate) fn new(attempt: &Attempt<'_>) -> Self {
        Self {
            store: attempt.worker.store.clone(),
            buckets: attempt.worker.buckets.clone(),
            clock: attempt.worker.clock.clone(),
            lease: attempt.lease.clone(),
            estimated_finish: None,
            signal: attempt.signal.clone(),
            steps: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Runs until the training thread is done and everything it said is stored.
    pub(crate) async fn run(
        mut self,
        mut messages: UnboundedReceiver<Message>,
    ) -> Result<(), Stop> {
        while let Some(message) = messages.recv().await {
            let result = match message {
                Message::Estimated(estimate) => {
                    self.estimated(&estimate);
                    self.flush().await
                }
                Message::Started(valid) => {
                    self.started(valid);
                    Ok(())
                }
                Message::Step(step) => {
                    self.step(*step);
                    self.flush_soon(&mut messages).await
                }
                Message::Checkpoint {
                    step,
                    dir,
                    report,
                    done,
                } => {
                    let stored = self.checkpoint(step, &dir, &report).await;
                    drop(done);
                    stored
                }
            };
            if let Err(stop) = result {
                self.signal.lose();
                return Err(stop);
            }
        }
        self.flush().await
    }

    fn estimated(&mut self, estimate: &Estimate) {
        let now = self.clock.now();
        self.estimated_finish = Some(after(now, estimate.seconds));
        let event = NewEvent::message(EventLevel::Info, format!("Estimated: {estimate}"), now);
        self.said.push(NewEvent {
            data: serde_json::to_value(estimate).ok(),
            ..event
        });
    }

    fn started(&mut self, valid: Option<Evaluation>) {
        if let Some(valid) = valid {
            let text = format!(
                "Before this attempt's first step: validation loss={:.4}",
                valid.loss
            );
            let data =
                json!({"valid_loss": valid.loss, "valid_mean_token_accuracy": valid.accuracy});
            let event = NewEvent::message(EventLevel::Info, text, self.clock.now());
            self.said.push(NewEvent {
                data: Some(data),
                ..event
            });
        }
    }

    fn step(&mut self, step: StepReport) {
        self.said.push(NewEvent::metrics(
            step_text(&step),
            step_data(&step),
            self.clock.now(),
        ));
        self.estimate(&step);
        self.steps.push(step);
    }

    /// Collects what arrives within [`FLUSH_AFTER`], up to the next checkpoint, then writes it in one go.
    async fn flush_soon(&mut self, messages: &mut UnboundedReceiver<Message>) -> Result<(), Stop> {
        let deadline = tokio::time::Instant::now() + FLUSH_AFTER;
        while let Ok(Some(message)) = tokio::time::timeout_at(deadline, messages.recv()).await {
            match message {
                Message::Step(step) => self.step(*step),
                Message::Estimated(estimate) => self.estimated(&estimate),
                Message::Started(valid) => self.started(valid),
                Message::Checkpoint {
                    step,
                    dir,
                    report,
                    done,
                } => {
                    let stored = self.checkpoint(step, &dir, &report).await;
                    drop(done);
                    return stored;
                }
            }
        }
        self.flush().await
    }

    fn estimate(&mut self, step: &StepReport) {
        let steps_left = step.total_steps - step.step;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds_left = step.step_ms / 1000.0 * steps_left as f64;
        self.estimated_finish = Some(after(self.clock.now(), seconds_left));
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        while let Err(stop) = self.try_flush().await {
            self.wait_or(stop).await?;
        }
        self.steps.clear();
        self.said.clear();
        Ok(())
    }

    async fn try_flush(&self) -> Result<(), Stop> {
        if self.steps.is_empty() && self.said.is_empty() {
            return Ok(());
        }
        let rows: Vec<StepMetrics> = self.steps.iter().map(step_metrics).collect();
        let mut tx = self.store.tenant_tx(self.lease.project_id).await?;
        metrics::record(&mut tx, &self.lease, &rows).await?;
        events::report(&mut tx, &self.lease, &self.said).await?;
        lease::progress(&mut tx, &self.lease, self.estimated_finish).await?;
        Ok(tx.commit().await?)
    }

    /// Stores a checkpoint: first its objects, then the row that makes it one. Its steps' metrics go before it, so
    /// that a job never resumes past what it has reported.
    async fn checkpoint(&mut self, step: u64, dir: &Path, report: &StepReport) -> Result<(), Stop> {
        self.flush().await?;
        let began = Instant::now();
        while let Err(stop) = self.try_checkpoint(step, dir, report).await {
            if matches!(stop, Stop::OwnBucket { .. }) && began.elapsed() > OWN_BUCKET_PATIENCE {
                return Err(stop);
            }
            self.wait_or(stop).await?;
        }
        Ok(())
    }

    async fn try_checkpoint(&self, step: u64, dir: &Path, report: &StepReport) -> Result<(), Stop> {
        let attempt = u32::try_from(self.lease.attempt).unwrap_or_default();
        let prefix = keys::checkpoint(self.lease.project_id, self.lease.job_id, attempt, step);
        // Asked each time: a run takes hours, and credentials may be new by now.
        let uploads = Uploads::begin(&self.store, &self.buckets, &self.lease).await?;
        let stored = uploads.folder(dir, &prefix).await?;
        let checkpoint = NewCheckpoint {
            step,
            object_prefix: prefix,
            metrics: checkpoint_metrics(report),
            manifest: stored.manifest,
            size_bytes: stored.size_bytes,
            created_at: self.clock.now(),
        };
        let mut tx = self.store.tenant_tx(self.lease.project_id).await?;
        uploads.hold(&mut tx).await?;
        checkpoints::create(&mut tx, &self.lease, &checkpoint).await?;
        Ok(tx.commit().await?)
    }

    /// Waits if `stop` is something that passes, and hands it back if it is not or the job is not ours any more.
    async fn wait_or(&self, stop: Stop) -> Result<(), Stop> {
        match stop {
            Stop::Away { message }
            | Stop::OwnBucket { message, .. }
            | Stop::Failed(Failure::Transient { message })
                if !self.signal.is_lost() =>
            {
                warn!(job.id = %self.lease.job_id, "Cannot store progress of `{}` yet: {message}", self.lease.job_id);
                tokio::time::sleep(TRY_AGAIN).await;
                Ok(())
            }
            stop => Err(stop),
        }
    }
}

/// A century at most: what is farther away is no date.
fn after(now: OffsetDateTime, seconds: f64) -> OffsetDateTime {
    now + time::Duration::seconds_f64(seconds.min(3e9))
}

fn step_text(step: &StepReport) -> String {
    let valid = step
        .valid
        .map(|valid| format!(", validation loss={:.4}", valid.loss))
        .unwrap_or_default();
    format!(
        "Step {}/{}: training loss={:.4}{valid}",
        step.step, step.total_steps, step.train_loss
    )
}

fn step_data(step: &StepReport) -> serde_json::Value {
    let mut data = json!({
        "step": step.step,
        "total_steps": step.total_steps,
        "train_loss": step.train_loss,
        "train_mean_token_accuracy": step.train_accuracy,
        "learning_rate": step.learning_rate,
        "grad_norm": step.grad_norm,
        "n_tokens": step.n_tokens,
        "n_loss_tokens": step.n_loss_tokens,
        "step_ms": step.step_ms,
    });
    if let Some(valid) = step.valid {
        data["valid_loss"] = valid.loss.into();
        data["valid_mean_token_accuracy"] = valid.accuracy.into();
    }
    data
}

fn step_metrics(step: &StepReport) -> StepMetrics {
    StepMetrics {
        step: step.step,
        train_loss: f64::from(step.train_loss),
        train_accuracy: step.train_accuracy,
        valid_loss: step.valid.map(|valid| valid.loss),
        valid_accuracy: step.valid.map(|valid| valid.accuracy),
        learning_rate: step.learning_rate,
        grad_norm: step.grad_norm,
        n_tokens: step.n_tokens,
        n_loss_tokens: step.n_loss_tokens,
        step_ms: step.step_ms,
    }
}

fn checkpoint_metrics(step: &StepReport) -> CheckpointMetrics {
    let loss = step.valid.map(|valid| valid.loss);
    let accuracy = step.valid.map(|valid| valid.accuracy);
    CheckpointMetrics {
        step: step.step,
        train_loss: f64::from(step.train_loss),
        train_mean_token_accuracy: step.train_accuracy,
        valid_loss: loss,
        valid_mean_token_accuracy: accuracy,
        // Every evaluation here is over the whole file.
        full_valid_loss: loss,
        full_valid_mean_token_accuracy: accuracy,
    }
}

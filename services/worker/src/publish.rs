//! The end of a job that went well: adapter, report, result file, and the rows that make them visible.

use std::fmt::Write;
use std::path::Path;

use artifacts::keys;
use domain::job::Outcome;
use domain::{Failure, FileId, FineTunedModelId, Job};
use serde_json::json;
use store::events::{EventLevel, NewEvent};
use store::files::{File, FileStatus};
use store::metrics::StepMetrics;
use store::{events, files, lease, metrics, models};
use training::report::{self, Draft, Point, Remark};
use training::{Trained, memory};

use crate::attempt::Attempt;
use crate::failure::Stop;

/// Metrics that are read at a time.
const PAGE: u32 = 1000;

/// Uploads the adapter, or the weights that learned, with the run's report and the result file, then makes model, file and status visible in one transaction.
pub(crate) async fn publish(
    attempt: &Attempt<'_>,
    trained: &Trained,
    draft: Draft,
    dir: &Path,
) -> Result<(), Stop> {
    let project_id = attempt.lease.project_id;
    let uploads = attempt.uploads().await?;

    let adapter_dir = dir.join("adapter");
    trained
        .learned
        .save(&adapter_dir, &attempt.job.base_model)?;
    let model_id = FineTunedModelId::new();
    let steps = all_metrics(attempt).await?;
    write_report(&adapter_dir, draft, trained, &steps)?;
    let adapter_prefix = keys::adapter(project_id, model_id);
    let model_bytes = uploads
        .folder(&adapter_dir, &adapter_prefix)
        .await?
        .size_bytes;

    let csv = result_csv(&steps);
    let path = dir.join("result.csv");
    std::fs::write(&path, &csv).map_err(|error| Failure::transient(&error))?;
    let result_file = FileId::new();
    let stored = uploads
        .file(&path, &keys::file(project_id, result_file))
        .await?;

    let now = attempt.worker.clock.now();
    let file = File {
        id: result_file,
        project_id,
        filename: "step_metrics.csv".to_owned(),
        purpose: "fine-tune-results".to_owned(),
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
        n_lines: Some(csv.lines().count() as u64),
        status: FileStatus::Processed,
        status_details: None,
        created_at: now,
        expires_at: None,
    };
    let job = succeeded(&attempt.job, trained, result_file, now)?;
    let mut tx = attempt.worker.store.tenant_tx(project_id).await?;
    lease::hold(&mut tx, &attempt.lease).await?;
    uploads.hold(&mut tx).await?;
    files::create(&mut tx, &file).await?;
    let model = models::publish(
        &mut tx,
        &attempt.lease,
        model_id,
        &adapter_prefix,
        model_bytes,
        now,
    );
    let said = closing_events(trained, &model.await?.name, now);
    events::report(&mut tx, &attempt.lease, &said).await?;
    lease::save(&mut tx, &attempt.lease, &job).await?;
    Ok(tx.commit().await?)
}

fn closing_events(trained: &Trained, model: &str, now: time::OffsetDateTime) -> Vec<NewEvent> {
    let info = |text| NewEvent::message(EventLevel::Info, text, now);
    let remarks = report::closing_remarks(trained).into_iter();
    let mut said: Vec<NewEvent> = remarks.map(|remark| remark_event(remark, now)).collect();
    said.push(info(format!("New fine-tuned model created: {model}")));
    said.push(NewEvent {
        // Among the model's objects.
        data: Some(json!({"report": report::FILE_NAME})),
        ..info("The job has successfully completed".to_owned())
    });
    said
}

fn remark_event(remark: Remark, now: time::OffsetDateTime) -> NewEvent {
    let level = if remark.is_warning {
        EventLevel::Warn
    } else {
        EventLevel::Info
    };
    NewEvent {
        data: remark.data,
        ..NewEvent::message(level, remark.text, now)
    }
}

fn succeeded(
    job: &Job,
    trained: &Trained,
    result_file: FileId,
    now: time::OffsetDateTime,
) -> Result<Job, Stop> {
    let outcome = Outcome {
        trained_tokens: trained.train_tokens,
        result_file,
    };
    job.clone()
        .succeed(&outcome, now)
        .map_err(|error| Failure::bug(error.to_string()).into())
}

/// The report goes where the adapter is, and with it.
fn write_report(
    dir: &Path,
    draft: Draft,
    trained: &Trained,
    steps: &[StepMetrics],
) -> Result<(), Stop> {
    let curve = steps.iter().map(point).collect();
    let report = draft.finish(trained, curve, memory::peak_bytes());
    let text = report
        .to_json()
        .map_err(|error| Failure::bug(format!("a report is no JSON: {error}")))?;
    std::fs::write(dir.join(report::FILE_NAME), text)
        .map_err(|error| Failure::transient(&error).into())
}

fn point(step: &StepMetrics) -> Point {
    Point {
        step: step.step,
        #[expect(clippy::cast_possible_truncation, reason = "it was an f32")]
        train_loss: step.train_loss as f32,
        valid_loss: step.valid_loss,
        learning_rate: step.learning_rate,
        grad_norm: step.grad_norm,
        n_tokens: step.n_tokens,
        n_loss_tokens: step.n_loss_tokens,
        step_ms: step.step_ms,
    }
}

/// What was stored of every step, those of earlier attempts included.
async fn all_metrics(attempt: &Attempt<'_>) -> Result<Vec<StepMetrics>, Stop> {
    let mut steps = Vec::new();
    loop {
        let after = steps.last().map_or(0, |step: &StepMetrics| step.step);
        let mut tx = attempt
            .worker
            .store
            .tenant_tx(attempt.lease.project_id)
            .await?;
        let page = metrics::list(&mut tx, attempt.job.id, after, PAGE).await?;
        tx.commit().await?;
        steps.extend(page.data);
        if !page.has_more {
            return Ok(steps);
        }
    }
}

/// The metrics of every step. Nothing timed and no id is in it: two runs of one config give the same bytes.
fn result_csv(steps: &[StepMetrics]) -> String {
    let mut csv =
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n".to_owned();
    for step in steps {
        csv.push_str(&csv_row(step));
    }
    csv
}

fn csv_row(step: &StepMetrics) -> String {
    let cell = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let mut row = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        row,
        "{},{},{},{},{}",
        step.step,
        step.train_loss,
        step.train_accuracy,
        cell(step.valid_loss),
        cell(step.valid_accuracy),
    );
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_evaluation_has_empty_cells() {
        let step = StepMetrics {
            step: 3,
            train_loss: 0.5,
            train_accuracy: 0.25,
            valid_loss: None,
            valid_accuracy: None,
            learning_rate: 1e-3,
            grad_norm: 1.0,
            n_tokens: 10,
            n_loss_tokens: 4,
            step_ms: 12.5,
        };
        assert_eq!(csv_row(&step), "3,0.5,0.25,,\n");
    }
}

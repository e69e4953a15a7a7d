//! What `attune train` leaves in its output folder besides the adapter.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use domain::TrainingConfig;
use lm::profile::Profile;
use serde::Serialize;
use serde_json::Value;
use training::report::{self, Draft, Point};
use training::{StepReport, Trained, memory};

/// `metrics.jsonl`, `summary.json` and `report.json`.
pub(super) struct Output {
    dir: PathBuf,
    metrics: File,
    /// All lines of `metrics.jsonl`.
    curve: Vec<Point>,
}

/// What a run came to, as `summary.json` says it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    train_tokens: u64,
    loss_tokens: u64,
    wall_s: f64,
    tokens_per_sec: f64,
    /// The most memory this process ever held, in MB of 10^6 bytes; 0 where the system does not tell.
    peak_rss_mb: f64,
    valid_loss: Option<f64>,
    truncated_rows: u64,
    steps: u64,
    /// Where the steps' time went, by [`lm::profile::Part`]; the rest is bookkeeping, data and evaluation.
    seconds_by_part: BTreeMap<&'static str, f64>,
    config: TrainingConfig,
}

impl Output {
    /// Opens the folder. Of a run that is resumed, the lines up to its checkpoint stay.
    pub(super) fn open(dir: &Path, first_step: u64) -> anyhow::Result<Self> {
        let path = dir.join("metrics.jsonl");
        let kept = lines_up_to(&path, first_step)?;
        let mut metrics =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        metrics.write_all(kept.as_bytes())?;
        let curve: Result<_, _> = kept.lines().map(serde_json::from_str).collect();
        Ok(Self {
            dir: dir.to_owned(),
            metrics,
            curve: curve.with_context(|| format!("{} has lines of its own", path.display()))?,
        })
    }

    /// Adds a step's line.
    pub(super) fn step(&mut self, report: &StepReport) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(report)?;
        line.push('\n');
        self.curve.push(report.into());
        self.metrics
            .write_all(line.as_bytes())
            .context("cannot write metrics.jsonl")
    }

    /// Writes the report of a run that is over.
    pub(super) fn report(&self, draft: Draft, trained: &Trained) -> anyhow::Result<()> {
        let path = self.dir.join(report::FILE_NAME);
        let report = draft.finish(trained, self.curve.clone(), memory::peak_bytes());
        std::fs::write(&path, report.to_json()?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes the summary.
    pub(super) fn summary(&self, summary: &Summary) -> anyhow::Result<()> {
        let path = self.dir.join("summary.json");
        let text = serde_json::to_string_pretty(summary)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Summary {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of tokens and bytes stay below 2^52"
    )]
    /// `tokens_seen` and `wall` are this process's; a resumed run's tokens before it are not.
    pub(super) fn new(
        trained: &Trained,
        config: TrainingConfig,
        truncated_rows: u64,
        tokens_seen: (u64, Duration),
        wall: Duration,
    ) -> Self {
        let (tokens, training) = tokens_seen;
        let tokens_per_sec = tokens as f64 / training.as_secs_f64().max(1e-9);
        Self {
            train_tokens: trained.train_tokens,
            loss_tokens: trained.loss_tokens,
            wall_s: wall.as_secs_f64(),
            tokens_per_sec,
            peak_rss_mb: memory::peak_bytes().unwrap_or(0) as f64 / 1e6,
            valid_loss: trained.valid.map(|valid| valid.loss),
            truncated_rows,
            steps: trained.steps,
            seconds_by_part: seconds_by_part(&trained.profile),
            config,
        }
    }
}

fn seconds_by_part(profile: &Profile) -> BTreeMap<&'static str, f64> {
    let parts = profile.parts();
    parts
        .map(|(part, time)| (part.name(), time.as_secs_f64()))
        .collect()
}

fn lines_up_to(path: &Path, last_step: u64) -> anyhow::Result<String> {
    if last_step == 0 || !path.exists() {
        return Ok(String::new());
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut kept = String::new();
    for line in BufReader::new(file).lines() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        // The last line of a killed run may be torn; it belongs to a step that is run again.
        let step = serde_json::from_str::<Value>(&line)
            .ok()
            .and_then(|line| line["step"].as_u64());
        if step.is_some_and(|step| step <= last_step) {
            kept.push_str(&line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_keeps_the_lines_of_its_checkpoint_and_drops_a_torn_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let line = |step| {
            let point = Point {
                step,
                train_loss: 0.5,
                valid_loss: None,
                learning_rate: 1e-3,
                grad_norm: 1.0,
                n_tokens: 10,
                n_loss_tokens: 4,
                step_ms: 2.0,
            };
            serde_json::to_string(&point).unwrap() + "\n"
        };
        let whole = line(1) + &line(2);
        std::fs::write(&path, format!("{whole}{}{{\"ste", line(3))).unwrap();
        let output = Output::open(dir.path(), 2).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        let steps: Vec<u64> = output.curve.iter().map(|point| point.step).collect();
        assert_eq!(steps, [1, 2]);
    }
}
